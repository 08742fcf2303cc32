"""Work that is done again and again: what fails is done later, and never ends the process that charges."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from common.errors import ApiError

log = logging.getLogger(__name__)

LONGEST = 60.0
"""Seconds between two tries of what fails."""


async def forever(
    what: str, interval: float, work: Callable[[], Awaitable[object]], hurry: asyncio.Event | None = None
) -> None:
    """Every `interval` seconds, or as soon as `hurry` is set; `what` is how the log names it."""
    hurry, failures = hurry or asyncio.Event(), 0
    while True:
        hurry.clear()
        try:
            await work()
        except ApiError as error:
            failures += 1
            if failures in (1, 10) or failures % 100 == 0:
                log.warning("%s later, %s failures in a row: %s", what, failures, error)
        except Exception:  # a bug here must not keep usage from being charged
            failures += 1
            log.exception("%s later: a bug", what)
        else:
            failures = 0
        pause = interval
        if failures:
            longest = max(min(interval * 2 ** min(failures, 20), LONGEST), 1.0, interval)
            pause = random.uniform(0.5, 1) * longest  # noqa: S311  jitter
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await hurry.wait()
