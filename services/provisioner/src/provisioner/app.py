"""Opens what the provisioner works with, and records requests until it is told to stop."""

import asyncio
from contextlib import AsyncExitStack

from common import bus, db, http, rpc, telemetry
from provisioner import consumers
from provisioner.routes import Admin, router
from provisioner.settings import Settings


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        probes = http.Probes()
        if settings.metrics_port:
            await stack.enter_async_context(http.serving(probes, settings.metrics_host, settings.metrics_port))
        pool = await stack.enter_async_context(db.open_pool(settings.postgres_dsn, "provisioner"))
        await db.migrate(pool, "provisioner")
        nats = await stack.enter_async_context(
            bus.connect(settings.nats_url, "provisioner", settings.nats_creds, settings.nats_replicas)
        )
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(telemetry.watch_loop())
            tasks.create_task(consumers.scale(nats, pool).run(stopping))
            await rpc.serve(nats, "provisioner", router, Admin(pool))
            probes.ready = True
            await stopping.wait()
            probes.ready = False
            watch.cancel()
