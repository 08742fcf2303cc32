"""Parked events: listed from the `DEAD` stream and replayed to where they came from."""

from datetime import datetime

import msgspec
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from common.bus import UNREACHABLE, Bus
from common.errors import Conflict, NotFound, Unavailable
from common.rpc import LARGEST

BRIEF = 4096
"""Bytes of a body that a list shows."""
ROOM = LARGEST - 1000
"""Bytes of an answer for letters."""
MOST_READ = 16_000_000
"""Bytes of bodies that are read for one page."""


class DeadLetter(msgspec.Struct, frozen=True):
    id: int
    """The sequence in the stream `DEAD`."""
    subject: str
    reason: str
    consumer: str
    time: datetime | None
    body: str
    """The event as it came; bytes that are not UTF-8 are replaced."""
    truncated: bool
    """`body` is only the beginning."""


async def page(bus: Bus, after: int, limit: int) -> list[DeadLetter]:
    """Parked events with an id above `after`, oldest first, in brief; fewer than `limit` where an answer is full."""
    found: list[DeadLetter] = []
    room, unread = ROOM, MOST_READ
    try:
        state = (await bus.js.stream_info("DEAD")).state
        sequence = max(after + 1, state.first_seq)
        while len(found) < limit and sequence <= state.last_seq and unread > 0:
            message = await _read(bus, sequence, next_from=True)
            if message is None:
                break
            letter = _letter(message, BRIEF)
            room -= len(msgspec.json.encode(letter)) + 1
            unread -= len(message.data or b"")
            if room < 0:
                break
            found.append(letter)
            sequence = letter.id + 1
    except UNREACHABLE as error:
        raise Unavailable(f"parked events cannot be read: {error!r}") from error
    return found


async def get(bus: Bus, id: int) -> DeadLetter:
    """The whole event where an answer has room for it, else in brief. Raises NotFound."""
    try:
        message = await _existing(bus, id)
    except UNREACHABLE as error:
        raise Unavailable(f"parked event {id} cannot be read: {error!r}") from error
    whole = _letter(message, None)
    return whole if len(msgspec.json.encode(whole)) < ROOM else _letter(message, BRIEF)


async def replay(bus: Bus, id: int) -> DeadLetter:
    """Publish it on its own subject again, then forget it here; it is returned in brief.

    The message id is new: within the stream's window for duplicates the old one would be dropped as known.
    Raises NotFound, and Conflict for one that was too large to be kept whole.
    """
    try:
        message = await _existing(bus, id)
        letter = _letter(message, BRIEF)
        if "Crosslogic-Cut" in (message.headers or {}):
            raise Conflict(f"parked event {id} was too large to be kept whole; the stream that it came from has it")
        await bus.publish(letter.subject, message.data or b"", f"replay.{id}")
        await bus.js.delete_msg("DEAD", id)
    except UNREACHABLE as error:
        raise Unavailable(f"parked event {id} cannot be replayed: {error!r}") from error
    return letter


async def _existing(bus: Bus, id: int) -> RawStreamMsg:
    message = await _read(bus, id, next_from=False)
    if message is None:
        raise NotFound(f"no parked event {id}")
    return message


async def _read(bus: Bus, sequence: int, *, next_from: bool) -> RawStreamMsg | None:
    try:
        if next_from:
            return await bus.js.get_msg("DEAD", seq=sequence, subject="dead.>", next=True)
        return await bus.js.get_msg("DEAD", seq=sequence)
    except NotFoundError:
        return None


def _letter(message: RawStreamMsg, most: int | None) -> DeadLetter:
    headers, body = message.headers or {}, message.data or b""
    return DeadLetter(
        id=message.seq or 0,
        subject=(message.subject or "").removeprefix("dead."),
        reason=headers.get("Crosslogic-Reason", ""),
        consumer=headers.get("Crosslogic-Consumer", ""),
        time=message.time,
        body=body[:most].decode("utf-8", "replace"),
        truncated=(most is not None and len(body) > most) or "Crosslogic-Cut" in headers,
    )
