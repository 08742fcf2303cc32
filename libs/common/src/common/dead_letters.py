"""Parked events: listed from the `DEAD` stream and replayed to where they came from."""

from datetime import datetime

import msgspec
from nats.js.errors import NotFoundError

from common.bus import UNREACHABLE, Bus
from common.errors import NotFound, Unavailable


class DeadLetter(msgspec.Struct, frozen=True):
    id: int
    """The sequence in the stream `DEAD`."""
    subject: str
    reason: str
    consumer: str
    time: datetime | None
    body: str
    """The event as it came; bytes that are not UTF-8 are replaced."""


async def page(bus: Bus, after: int, limit: int) -> list[DeadLetter]:
    """Parked events with an id above `after`, oldest first."""
    found: list[DeadLetter] = []
    try:
        state = (await bus.js.stream_info("DEAD")).state
        sequence = max(after + 1, state.first_seq)
        while len(found) < limit and sequence <= state.last_seq:
            letter = await _read(bus, sequence, next_from=True)
            if letter is None:
                break
            found.append(letter)
            sequence = letter.id + 1
    except UNREACHABLE as error:
        raise Unavailable(f"parked events cannot be read: {error!r}") from error
    return found


async def replay(bus: Bus, id: int) -> DeadLetter:
    """Publish it on its own subject again, then forget it here. Raises NotFound.

    The message id is new: within the stream's window for duplicates the old one would be dropped as known.
    """
    try:
        letter = await _read(bus, id, next_from=False)
        if letter is None:
            raise NotFound(f"no parked event {id}")
        message = await bus.js.get_msg("DEAD", seq=id)
        await bus.publish(letter.subject, message.data or b"", f"replay.{id}")
        await bus.js.delete_msg("DEAD", id)
    except UNREACHABLE as error:
        raise Unavailable(f"parked event {id} cannot be replayed: {error!r}") from error
    return letter


async def _read(bus: Bus, sequence: int, *, next_from: bool) -> DeadLetter | None:
    try:
        if next_from:
            message = await bus.js.get_msg("DEAD", seq=sequence, subject="dead.>", next=True)
        else:
            message = await bus.js.get_msg("DEAD", seq=sequence)
    except NotFoundError:
        return None
    headers = message.headers or {}
    return DeadLetter(
        id=message.seq or 0,
        subject=(message.subject or "").removeprefix("dead."),
        reason=headers.get("Crosslogic-Reason", ""),
        consumer=headers.get("Crosslogic-Consumer", ""),
        time=message.time,
        body=(message.data or b"").decode("utf-8", "replace"),
    )
