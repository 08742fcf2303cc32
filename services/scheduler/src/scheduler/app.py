"""Opens what the scheduler works with, and runs its loops until it is told to stop."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp

from common import bus, db, http, rpc, telemetry
from common.breaker import Policy
from common.ids import new_id
from common.routing import OUTCOMES
from common.run import cancelled
from scheduler import capacity, drains
from scheduler.agent_routes import router
from scheduler.breakers import Breakers
from scheduler.deployed import Deployed
from scheduler.herald import Herald
from scheduler.keeper import Keeper
from scheduler.leader import Leader
from scheduler.leases import open_leases
from scheduler.poller import SUSPECTED, Poller
from scheduler.probe import Prober
from scheduler.reaper import Reaper
from scheduler.registry import Registry
from scheduler.routes import POKE, Admin
from scheduler.scaler import Scaler
from scheduler.settings import Settings
from scheduler.watcher import Watcher


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        probes = http.Probes()
        if settings.metrics_port:
            await stack.enter_async_context(http.serving(probes, settings.metrics_host, settings.metrics_port))
        pool = await stack.enter_async_context(db.open_pool(settings.postgres_dsn, "scheduler"))
        await db.migrate(pool, "scheduler")
        nats = await stack.enter_async_context(
            bus.connect(settings.nats_url, "scheduler", settings.nats_creds, settings.nats_replicas)
        )
        leases = await stack.enter_async_context(open_leases(settings.redis_url, settings.redis_namespace))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

        prober = Prober(session, settings.health_timeout, settings.generation_timeout)
        leader = Leader(settings.postgres_dsn)
        policy = Policy(
            in_a_row=settings.breaker_failures,
            volume=settings.breaker_volume,
            share=settings.breaker_share,
            window=settings.breaker_window,
            shortest=settings.breaker_open,
            longest=settings.breaker_longest,
            permit=2 * settings.health_timeout + settings.generation_timeout + 5,
        )
        registry = Registry(new_id, policy)
        deployed = Deployed(nats, registry.routes_changed)
        scaler = Scaler(
            nats, pool, leases, leader, registry, deployed, capacity.Policy(concurrency=settings.concurrency)
        )
        breakers = Breakers(nats, str(new_id()), policy)
        reaper = Reaper(nats, leases, settings.reap_interval, settings.claim)
        async with asyncio.TaskGroup() as tasks:
            follow = tasks.create_task(deployed.run(stopping))
            watch = tasks.create_task(telemetry.watch_loop())
            poller = Poller(registry, prober, breakers, settings.health_interval, tasks)
            keeper = Keeper(pool, leader, registry, poller, breakers)
            await nats.listen(POKE, keeper.poke)
            await nats.listen(OUTCOMES, poller.heard)
            await nats.listen(SUSPECTED, poller.suspect)
            await rpc.serve(nats, "scheduler", router, Admin(pool, nats, leases, prober))
            watcher = Watcher(nats, leader, registry, prober, settings.load_interval, settings.count_interval)
            herald = Herald(nats, leader, registry, deployed)
            drained = drains.consumer(nats, pool, POKE)
            for loop in (leader, keeper, herald, scaler, reaper, watcher, drained):
                tasks.create_task(loop.run(stopping))
            while not stopping.is_set():
                probes.ready = leader.known and reaper.loaded
                await _pause(stopping)
            probes.ready = False
            await cancelled([watch, follow])


async def _pause(stopping: asyncio.Event, seconds: float = 0.1) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        pass
