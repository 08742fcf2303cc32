"""What a stream holds, read once and in order, without a trace on it: for replays, not for consumers that settle.

What is published while it is read is left out, so that reading ends.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from common.bus import UNREACHABLE, Bus
from common.errors import Unavailable
from common.pull import pulling

TRIES = 20
PAUSE = 0.5  # seconds between tries
FORGOTTEN_AFTER = 30.0  # seconds that the server keeps a consumer whose reader died


class Batch(msgspec.Struct, frozen=True):
    bodies: list[bytes]
    last: int
    """Sequence of the last of them."""
    left: int
    """Messages of the stream and subject that follow now."""


async def backlog(
    bus: Bus, stream: str, subject: str, since: datetime | None = None, size: int = 1000
) -> AsyncIterator[Batch]:
    """Messages stored from `since` on, oldest first; an interrupted connection is taken up where it broke.

    Raises Unavailable when the server stays away.
    """
    try:
        end = (await bus.js.stream_info(stream)).state.last_seq
    except UNREACHABLE as error:
        raise Unavailable(f"{stream} cannot be read: {error!r}") from error
    after, tries = 0, 0
    while after < end:
        try:
            async for batch in _stretch(bus, stream, subject, since, after, end, size):
                yield batch
                after, tries = batch.last, 0
        except (Unavailable, *UNREACHABLE) as error:
            if (tries := tries + 1) == TRIES:
                raise Unavailable(f"{stream} cannot be read: {error!r}") from error
            await asyncio.sleep(PAUSE)
        else:
            return


async def _stretch(
    bus: Bus, stream: str, subject: str, since: datetime | None, after: int, end: int, size: int
) -> AsyncIterator[Batch]:
    """Until the end, or until a message is missing: acknowledgements would cost more than reading a stretch again."""
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE, filter_subject=subject, inactive_threshold=FORGOTTEN_AFTER, mem_storage=True
    )
    if after:
        config.deliver_policy, config.opt_start_seq = DeliverPolicy.BY_START_SEQUENCE, after + 1
    elif since is not None:
        config.deliver_policy, config.opt_start_time = DeliverPolicy.BY_START_TIME, since
    consumer = await bus.js.add_consumer(stream, config)
    if not consumer.num_pending:
        return
    never, expected = asyncio.Event(), 1
    async with pulling(bus.client, stream, consumer.name, size, never) as pull:
        while True:
            messages = await pull.take(never)
            told = [message.metadata for message in messages]
            if [one.sequence.consumer for one in told] != list(range(expected, expected + len(told))):
                raise Unavailable("messages were lost on the way")
            expected += len(told)
            bodies = [m.data for m, one in zip(messages, told, strict=True) if one.sequence.stream <= end]
            last = told[-1]
            if bodies:
                yield Batch(bodies, min(last.sequence.stream, end), last.num_pending)
            if last.sequence.stream >= end or not last.num_pending:
                return
