"""Opens what the provisioner works with, and keeps the fleet as it is desired until it is told to stop."""

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec

from common import bus, db, http, rpc, telemetry
from common.deployments import Image, Version
from common.errors import SettingsError, Unavailable
from provisioner import consumers, flags
from provisioner.deployments import Deployments
from provisioner.fitting import Defaults
from provisioner.fleet import POKE, Fleet
from provisioner.launcher import Launcher
from provisioner.leader import Leader
from provisioner.life import Life
from provisioner.local import Local
from provisioner.logs import Logs
from provisioner.nodes import Nodes
from provisioner.offers import Offers
from provisioner.reconcile import Patience
from provisioner.routes import Admin, router
from provisioner.secret import Secret
from provisioner.settings import Settings


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    secret, defaults = _secret(settings), _defaults(settings)
    async with AsyncExitStack() as stack:
        probes = http.Probes()
        if settings.metrics_port:
            await stack.enter_async_context(http.serving(probes, settings.metrics_host, settings.metrics_port))
        pool = await stack.enter_async_context(db.open_pool(settings.postgres_dsn, "provisioner"))
        await db.migrate(pool, "provisioner")
        nats = await stack.enter_async_context(
            bus.connect(settings.nats_url, "provisioner", settings.nats_creds, settings.nats_replicas)
        )
        launchers = _launchers(settings)
        offers, nodes, leader = Offers(launchers), Nodes(nats), Leader(settings.postgres_dsn)
        life = Life(pool, nats, launchers, nodes, secret, defaults)
        fleet = Fleet(pool, nats, leader, launchers, offers, nodes, life, _patience(settings))

        async def changed() -> None:
            with suppress(Unavailable):  # the leader looks again soon anyway
                await nats.tell(POKE, b"")

        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(telemetry.watch_loop())
            await nats.listen(POKE, fleet.poke)
            for loop in (consumers.scale(nats, pool, changed), leader, fleet):
                tasks.create_task(loop.run(stopping))
            admin = Admin(pool, Deployments(pool, defaults, offers, changed), Logs(pool, launchers))
            await rpc.serve(nats, "provisioner", router, admin)
            probes.ready = True
            await stopping.wait()
            fleet.poke()
            probes.ready = False
            watch.cancel()


def _launchers(settings: Settings) -> dict[str, Launcher]:
    found: dict[str, Launcher] = {}
    if settings.sky_api:
        found["sky"] = _cloud(settings.sky_api)
    if settings.local_dir:
        found["local"] = Local(
            Path(settings.local_dir),
            engine=settings.local_engine,
            vllm=settings.local_vllm,
            most=settings.local_machines,
            lifeline=Path(settings.local_lifeline) if settings.local_lifeline else None,
        )
    return found


def _cloud(url: str) -> Launcher:
    # SkyPilot takes both from the environment alone, when it is imported, which takes seconds and 170 MB
    os.environ.update(SKYPILOT_API_SERVER_ENDPOINT=url, SKYPILOT_DISABLE_USAGE_COLLECTION="1")
    from provisioner.cloud import Cloud

    return Cloud()


def _secret(settings: Settings) -> Secret:
    try:
        return Secret(settings.secret_key)
    except ValueError as error:
        raise SettingsError(f"SECRET_KEY is {error}") from error


def _defaults(settings: Settings) -> Defaults:
    version = settings.vllm_version or flags.versions()[-1]
    images = {image.strip() for image in settings.vllm_images.split(",") if image.strip()}
    try:
        msgspec.convert(version, Version)
        msgspec.convert([*images, *filter(None, [settings.vllm_image])], list[Image])
    except msgspec.ValidationError as error:
        raise SettingsError(f"VLLM_VERSION, VLLM_IMAGE or VLLM_IMAGES is not valid: {error}") from error
    if version not in flags.versions():
        raise SettingsError(f"VLLM_VERSION is not one of {', '.join(flags.versions())}")
    return Defaults(version=version, image=settings.vllm_image, images=frozenset(images))


def _patience(settings: Settings) -> Patience:
    return Patience(launching=settings.launch_timeout, warming=settings.warm_timeout, draining=settings.drain_timeout)
