"""What came over the wire to a usage record that may be charged. Pure: the moment is an argument."""

from datetime import UTC, datetime, timedelta

import msgspec

from common.errors import Unprocessable
from common.events import UsageRecorded

DAY = timedelta(days=1)
OLDEST = timedelta(days=400)
ANY_AGE = timedelta(days=36_500)
AHEAD = timedelta(minutes=5)
"""By how much clocks may differ: a price that begins now must wait until after what has been charged already."""
LONGEST = 256
"""Characters of a name: two of them share an index entry in Postgres, which is bounded."""
MOST_BYTES = 64 * 1024
"""Of a record: a hundred times what one has, and unknown fields are kept by the stream only."""
UNKNOWN = "its tenant does not exist"

_decoder = msgspec.json.Decoder(UsageRecorded)


def read(body: bytes, now: datetime, oldest: timedelta = OLDEST) -> UsageRecorded:
    """The record with its times in UTC, so that what Postgres gives back equals it; no older than `oldest`.

    Raises Unprocessable with a reason for operators.
    """
    if len(body) > MOST_BYTES:
        raise Unprocessable(f"not a usage record: {len(body)} bytes are more than {MOST_BYTES}")
    try:
        event = _decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unprocessable(f"not a usage record: {error}") from error
    if problem := _of_values(event) or _of_times(event, now, oldest):
        raise Unprocessable(problem)
    first = event.first_token_at
    if event.time.tzinfo is event.started_at.tzinfo is event.ended_at.tzinfo is (first or event.time).tzinfo is UTC:
        return event
    return msgspec.structs.replace(
        event,
        time=event.time.astimezone(UTC),
        started_at=event.started_at.astimezone(UTC),
        first_token_at=first.astimezone(UTC) if first else None,
        ended_at=event.ended_at.astimezone(UTC),
    )


def _of_values(event: UsageRecorded) -> str | None:
    if event.id.version != 7:
        return f"id {event.id} is not a UUIDv7"
    if event.cached_tokens > event.input_tokens:
        return f"cached_tokens {event.cached_tokens} exceed input_tokens {event.input_tokens}"
    named = ("model", event.model), ("region", event.region), ("node_id", event.node_id), ("endpoint", event.endpoint)
    for field, text in named:
        if text and (len(text) > LONGEST or "\0" in text):
            return f"{field} is longer than {LONGEST} characters or contains NUL"
    return None


def _of_times(event: UsageRecorded, now: datetime, oldest: timedelta) -> str | None:
    started = event.started_at
    if started < now - oldest:
        return f"started_at {started.isoformat()} is more than {oldest.days} days ago"
    if started > now + AHEAD:
        return f"started_at {started.isoformat()} is more than {AHEAD.seconds // 60} minutes ahead"
    # the id's time chooses the ledger's partition; as a number, since it may lie beyond the year 9999
    if abs((event.id.int >> 80) / 1000 - started.timestamp()) > DAY.total_seconds():
        return f"id {event.id} was not made within a day of started_at {started.isoformat()}"
    for field in ("time", "first_token_at", "ended_at"):
        at = getattr(event, field) or started
        if not started - DAY <= at <= now + DAY:
            return f"{field} {at.isoformat()} is more than a day before started_at or ahead"
    return None
