"""`python -m stack`: everything in the foreground, until Ctrl-C."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from common import settings
from common.errors import SettingsError
from stack import console
from stack.bootstrap import AdminRefused
from stack.config import Config
from stack.ports import PortInUse
from stack.process import StartFailed
from stack.settings import Settings
from stack.stack import Stack

ONCE = 1.0
"""Seconds in which several signals are one: `timeout` and some terminals send theirs to us and to our group."""


class AlreadyRunning(Exception):
    """Another stack holds the folder."""


def main() -> int:
    logging.basicConfig(format="stack         %(levelname)s: %(message)s", level=logging.WARNING)
    try:
        values = settings.load(Settings, os.environ, "stack")
        folder = Path(values.local_dir)
        with alone(folder):
            asyncio.run(run(_config(values, folder)))
    except (SettingsError, AlreadyRunning, PortInUse, StartFailed, AdminRefused, aiohttp.ClientError) as error:
        sys.stderr.write(f"stack: {error}\n")
        return 1
    return 0


async def run(config: Config) -> None:
    """Until SIGINT, SIGTERM or SIGHUP; the second one ends us at once, and the kernel our children."""
    stopping = asyncio.Event()

    asked = 0.0

    def stop() -> None:
        nonlocal asked
        if not stopping.is_set():
            asked = time.monotonic()
            sys.stderr.write("\nstopping; once more to kill\n")
            stopping.set()
        elif time.monotonic() > asked + ONCE:
            os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    serving = asyncio.create_task(_serve(config))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if stopping.is_set():
        serving.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    if not isinstance(error := (await asyncio.gather(serving, return_exceptions=True))[0], asyncio.CancelledError):
        assert error is not None
        raise error


async def _serve(config: Config) -> None:
    async with Stack(config) as stack:
        page = console.banner(stack.gateway_url, stack.api_key, stack.admin_token, stack.models, stack.dir)
        sys.stdout.write(page)
        sys.stdout.flush()
        await console.follow(stack.dir / "logs")


def _config(values: Settings, folder: Path) -> Config:
    return Config(
        dir=folder,
        port=values.port,
        nats_port=values.nats_port,
        postgres_port=values.postgres_port,
        redis_port=values.redis_port,
        gateways=values.gateways,
        engines=tuple(url.strip() for url in values.engines.split(",") if url.strip()),
        durable=True,
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder. Raises AlreadyRunning with the pid of who does. The kernel lets go of it when we die."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise AlreadyRunning(
                f"already running in {folder.absolute()} (pid {file.read().strip()}): stop that one first"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if __name__ == "__main__":
    sys.exit(main())
