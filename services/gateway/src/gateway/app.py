"""The gateway's composition root: every resource is opened here, handed down, and closed in reverse order."""

import asyncio
import logging
import random
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import msgspec

from common import bus, db, http, rpc, telemetry
from common.breaker import Policy
from common.errors import Unavailable
from common.events import KeyChanged
from common.ids import new_id
from common.leases import Layer
from common.redis import Redis
from common.run import cancelled
from gateway import addresses, answering, oidc, routes
from gateway.admin_token import AdminToken
from gateway.admission import Admission
from gateway.api_keys import ApiKeys
from gateway.budget import Budgets
from gateway.door import Door
from gateway.ejection import Ejection
from gateway.failures import Failures
from gateway.identity import Identity
from gateway.inference import Inference
from gateway.journal import Journal
from gateway.last_used import LastUsed
from gateway.leases import SECONDS, Leases
from gateway.members import Members
from gateway.nodes import Nodes
from gateway.observed import Observed, tracing
from gateway.oidc import People
from gateway.operators import Operators
from gateway.outcomes import Outcomes
from gateway.owed import Owed
from gateway.placement import Placement
from gateway.prices import Prices
from gateway.queue import Queue
from gateway.routes.guards import Guards
from gateway.server import Server, listening
from gateway.settings import Settings
from gateway.settlement import Settlement
from gateway.spool import Spool
from gateway.tenants import Tenants
from gateway.throttle import Throttle
from gateway.tokenizer import Tokenizer
from gateway.upstream import Timeouts, Upstream
from gateway.waiter import Rules

log = logging.getLogger(__name__)


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    root = AdminToken(settings.admin_api_token, settings.admin_api_token_previous)
    issuers, trusted = oidc.issuers(settings.oidc_issuers), addresses.networks(settings.trusted_proxies)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(db.open_pool(settings.postgres_dsn, "gateway"))
        await db.migrate(pool, "gateway")
        nats = await stack.enter_async_context(
            bus.connect(settings.nats_url, "gateway", settings.nats_creds, settings.nats_replicas)
        )
        redis, upkeep = (Redis(settings.redis_url, name, observe=SECONDS.observe) for name in ("gateway", "upkeep"))
        for connection in (redis, upkeep):
            stack.callback(connection.close)
        with suppress(Unavailable):  # without it requests are placed by local counts
            await redis.connect()

        last_used = LastUsed(pool, settings.last_used_seconds)
        identity = Identity(pool, settings.key_cache_seconds, last_used)
        await nats.listen("key.changed.v1", lambda body: identity.changed(msgspec.json.decode(body, type=KeyChanged)))
        nodes = Nodes()
        leases = Leases(redis, upkeep, settings.redis_namespace)
        timeouts = Timeouts(
            settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout, settings.total_timeout
        )
        upstream = Upstream(timeouts)
        stack.callback(upstream.close)
        spool = Spool(Path(settings.spool_dir))
        stack.callback(spool.rotate)
        tracer = stack.enter_context(tracing(settings.otel_exporter_otlp_endpoint, settings.trace_ratio))
        observed = Observed(tracer)
        settlement = Settlement(nats, spool, leases, observed, settings.lease_ttl_ms, settings.renew_ms)
        ejection = Ejection(Policy(in_a_row=settings.breaker_failures, permit=10), time.monotonic, random.random)
        outcomes = Outcomes(nats, ejection)
        placement = Placement(nodes, ejection, leases, settings.lease_ttl_ms, settings.fail_open_seconds)
        bell = Redis(settings.redis_url, "queue")
        stack.callback(bell.close)
        rules = Rules(
            settings.queue_seconds,
            settings.cold_start_seconds,
            settings.queue_length,
            settings.queue_length_of_tenant,
            settings.renew_ms / 1000,
        )
        queue = Queue(
            nodes,
            ejection,
            leases,
            Leases(bell, bell, settings.redis_namespace),
            placement.live,
            settings.lease_ttl_ms,
            rules,
            new_id(),
        )
        prices, budgets = Prices(), Budgets(leases, nats)
        everyone = Layer(
            "global:",
            settings.global_requests_per_minute,
            settings.global_tokens_per_minute,
            settings.global_max_concurrency,
        )
        admission = Admission(nodes, prices, budgets, everyone, settings.default_max_output)
        tokenizer = Tokenizer(nodes, upstream)
        inference = Inference(
            outcomes,
            admission,
            placement,
            upstream,
            settlement,
            tokenizer,
            settings.max_attempts,
            settings.continuation,
            queue,
            (settings.first_comment_seconds, settings.comment_seconds),
        )
        readiness = routes.Readiness()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        journal, members, operators = Journal(pool, nats), Members(pool), Operators(pool, root)
        failures = Failures(nats, Throttle(settings.auth_failures, settings.auth_failure_seconds))
        await failures.listen()
        people = People(session, issuers, settings.oidc_audience)
        tenants = Tenants(pool, nats, Owed(nats), budgets)
        services = routes.Services(
            identity=identity,
            nodes=nodes,
            placement=placement,
            queue=queue,
            bus=nats,
            tenants=tenants,
            members=members,
            api_keys=ApiKeys(pool, nats),
            operators=operators,
            journal=journal,
            guards=Guards(operators, people, members, journal, failures, trusted),
            max_body_bytes=settings.max_body_bytes,
        )
        others = routes.build(services, readiness)
        await rpc.serve(nats, "gateway", answering.router, tenants)
        door = Door(identity, inference, others)
        server = Server(door, settings.max_body_bytes, settings.body_timeout, settings.client_stall_timeout)

        tasks = [
            asyncio.create_task(work)
            for work in (
                nodes.follow(nats),
                prices.follow(nats),
                queue.keep(),
                queue.listen(),
                budgets.follow(),
                budgets.keep(),
                outcomes.tell(),
                settlement.renew(),
                settlement.republish(),
                upstream.sweep(),
                last_used.keep_writing(),
                journal.summarize(),
                journal.publish(),
                telemetry.watch_loop(),
            )
        ]
        probes = http.Probes()
        if settings.metrics_port:
            await stack.enter_async_context(http.serving(probes, settings.metrics_host, settings.metrics_port))
        with suppress(TimeoutError):
            # a request that comes first must not pass a budget that is not known yet
            async with asyncio.timeout(5):
                await budgets.loaded.wait()
        async with listening(server, settings.host, settings.port) as stop_accepting:
            readiness.ready = probes.ready = True
            log.info("listening on %s:%s", settings.host, settings.port)
            await stopping.wait()
            readiness.ready = probes.ready = False
            log.info("stopping: %s requests are running", settlement.live)
            stop_accepting()
            if not await settlement.drained(settings.shutdown_timeout):
                log.warning("stopping: %s requests are cut", settlement.live)
                outcomes.mute()
                upstream.cut("the gateway is shutting down")
        await settlement.drained()
        await others.drained(5)
        await journal.summarized(early=True)
        await last_used.write()
        await cancelled(tasks)
