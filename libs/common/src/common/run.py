"""From `__main__` to a running service: uvloop, signals, logging, a settings error that reads well."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import uvloop

from common import settings, telemetry
from common.errors import SettingsError

S = TypeVar("S", bound=msgspec.Struct)


def main(service: str, kind: type[S], run: Callable[[S, asyncio.Event], Awaitable[None]]) -> int:
    """Run `run(settings, stopping)`; SIGTERM and SIGINT set `stopping`. Returns the exit code."""
    telemetry.configure_logging(service, os.environ.get("LOG_LEVEL", "INFO"))
    try:
        values = settings.load(kind, os.environ, service)
        uvloop.run(_until_signal(values, run))
    except SettingsError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    return 0


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended. Once is not enough: on Python 3.11 `asyncio.wait_for`, which drivers use,
    loses a cancellation that comes together with its result."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)


async def _until_signal(values: S, run: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    # modules stay, so the collector need not look at them; requests are mostly freed by their counts
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await run(values, stopping)
