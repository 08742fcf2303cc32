"""Opens what billing works with, and charges until it is told to stop."""

import asyncio
from contextlib import AsyncExitStack

from billing import account_routes, consumers, invoice_routes, plan_routes
from billing.accounts import Accounts
from billing.routes import Admin, router
from billing.settings import Settings
from billing.upkeep import look_after, make_partitions
from common import bus, db, http, rpc, telemetry
from common.run import cancelled


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        probes = http.Probes()
        if settings.metrics_port:
            await stack.enter_async_context(http.serving(probes, settings.metrics_host, settings.metrics_port))
        pool = await stack.enter_async_context(db.open_pool(settings.postgres_dsn, "billing"))
        await db.migrate(pool, "billing")
        nats = await stack.enter_async_context(
            bus.connect(settings.nats_url, "billing", settings.nats_creds, settings.nats_replicas)
        )
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(telemetry.watch_loop())
            accounts = Accounts(pool, nats)
            publish = tasks.create_task(accounts.publish())
            tasks.create_task(consumers.usage(nats, pool, accounts.touch).run(stopping))
            account_routes.add(router)
            plan_routes.add(router)
            invoice_routes.add(router)
            await rpc.serve(nats, "billing", router, Admin(pool, nats, accounts))
            upkeep = [tasks.create_task(look_after(probes, pool, nats)), tasks.create_task(make_partitions(pool))]
            await stopping.wait()
            await cancelled([watch, publish, *upkeep])
        probes.ready = False
