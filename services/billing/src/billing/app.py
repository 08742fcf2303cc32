"""Opens what billing works with, and charges until it is told to stop."""

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import timedelta

from billing import (
    account_routes,
    channels,
    consumers,
    engines,
    incidents,
    invoice_routes,
    month_end,
    notice_routes,
    plan_routes,
    stripe_routes,
)
from billing.accounts import Accounts
from billing.customers import Customers
from billing.delivery import Delivery
from billing.dunning import Dunning
from billing.known import Known
from billing.metering import Metering
from billing.reconcile import Reconciler
from billing.routes import Admin, router
from billing.senders import open_senders
from billing.settings import Settings
from billing.stripe_api import open_stripe
from billing.till import Office, Till
from billing.upkeep import forget_notices, look_after, make_partitions
from common import bus, db, failpoint, http, rpc, telemetry
from common.errors import SettingsError
from common.run import cancelled

log = logging.getLogger(__name__)

WRITERS = 2
"""While Postgres writes one batch the next is read: neither waits for the other."""


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        failpoint.arm(settings.failpoint)
        probes = http.Probes()
        if settings.metrics_port:
            await stack.enter_async_context(http.serving(probes, settings.metrics_host, settings.metrics_port))
        pool = await stack.enter_async_context(db.open_pool(settings.postgres_dsn, "billing"))
        await db.migrate(pool, "billing")
        nats = await stack.enter_async_context(
            bus.connect(settings.nats_url, "billing", settings.nats_creds, settings.nats_replicas)
        )
        lease = settings.notice_timeout * 2
        senders = await stack.enter_async_context(
            open_senders(settings.smtp_url, settings.mail_from, settings.notice_timeout, settings.notice_loopback)
        )
        await channels.keep_operators(
            pool, settings.operators_email, _operators_webhook(settings), settings.operators_slack_url
        )
        delivery = Delivery(pool, senders, lease=lease, first_pause=settings.notice_first_pause)
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(telemetry.watch_loop())
            accounts = Accounts(pool, nats)
            publish = tasks.create_task(accounts.publish())
            known = Known(nats)
            for _ in range(WRITERS):
                tasks.create_task(consumers.usage(nats, pool, known, accounts.touch).run(stopping))
            account_routes.add(router)
            plan_routes.add(router)
            invoice_routes.add(router)
            notice_routes.add(router)
            tasks.create_task(incidents.run(nats, pool, stopping))
            deliver = tasks.create_task(delivery.run())
            month_ends = tasks.create_task(month_end.run(pool))
            forget = tasks.create_task(forget_notices(pool))
            office = None
            if settings.stripe_api_key:
                stripe = await stack.enter_async_context(
                    open_stripe(settings.stripe_api_key, settings.stripe_api_base, settings.stripe_timeout)
                )
                office = Office(stripe, Customers(pool, nats, stripe))
            else:
                log.info("Stripe is off: STRIPE_API_KEY is not set")
            dunning = Dunning(pool, nats, timedelta(days=settings.stripe_grace_days))
            secrets = tuple(filter(None, settings.stripe_webhook_secret.replace(" ", "").split(",")))
            till = Till(secrets=secrets, dunning=dunning, opened=office)
            stripe_routes.add(router)
            await rpc.serve(nats, "billing", router, Admin(pool, nats, accounts, senders, till))
            upkeep = [tasks.create_task(look_after(probes, pool, nats)), tasks.create_task(make_partitions(pool))]
            upkeep.append(tasks.create_task(dunning.run()))
            tasks.create_task(engines.counts(nats, pool).run(stopping))
            upkeep.append(tasks.create_task(Reconciler(pool, nats, office).run()))
            if office is not None:
                metering = Metering(pool, nats, office.stripe, office.customers, settings.stripe_interval)
                upkeep.append(tasks.create_task(metering.run()))
            await stopping.wait()
            await cancelled([watch, publish, deliver, month_ends, forget, *upkeep])
        probes.ready = False


def _operators_webhook(settings: Settings) -> tuple[str, str] | None:
    if settings.operators_webhook_url is None:
        return None
    if settings.operators_webhook_secret is None:
        raise SettingsError("OPERATORS_WEBHOOK_SECRET is not set")
    return settings.operators_webhook_url, settings.operators_webhook_secret
