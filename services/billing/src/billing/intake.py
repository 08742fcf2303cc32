"""The door of the ledger: bytes to a usage record, or the reason why they can never be charged. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from common.errors import Unprocessable
from common.events import UsageRecorded
from common.ids import time_of

FUTURE = timedelta(days=1)
PAST = timedelta(days=400)
DRIFT = timedelta(days=1)
"""Between the id's own time and the beginning of the request: the id decides the partition, so it must not stray."""
LONGEST_NAME = 256

_decoder = msgspec.json.Decoder(UsageRecorded)


def read(body: bytes, now: datetime) -> UsageRecorded:
    """Raises Unprocessable with a reason for operators."""
    try:
        record = _decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unprocessable(f"not a usage record: {error}") from error
    _check(record, now)
    return record


def read_all(bodies: Sequence[bytes], now: datetime) -> tuple[list[UsageRecorded], dict[int, str]]:
    """The records, and by index the reason of each body that is none. The records match the bodies if all are good."""
    records: list[UsageRecorded] = []
    reasons: dict[int, str] = {}
    for index, body in enumerate(bodies):
        try:
            records.append(read(body, now))
        except Unprocessable as error:
            reasons[index] = str(error)
    return records, reasons


def _check(record: UsageRecorded, now: datetime) -> None:
    if record.cached_tokens > record.input_tokens:
        raise Unprocessable(
            f"cached_tokens {record.cached_tokens} are a part of input_tokens, which are {record.input_tokens}"
        )
    id = record.id.int
    if (id >> 76) & 0xF != 7 or (id >> 62) & 0b11 != 0b10:
        raise Unprocessable(f"id {record.id} is not a UUIDv7")
    started, ended, first = record.started_at, record.ended_at, record.first_token_at
    if not now - PAST <= started <= now + FUTURE:
        raise Unprocessable(f"started_at {started.isoformat()} is more than 400 days ago or a day ahead")
    if abs((id >> 80) / 1000 - started.timestamp()) > DRIFT.total_seconds():
        raise Unprocessable(
            f"id was made at {time_of(record.id).isoformat()}, over a day from started_at {started.isoformat()}"
        )
    earliest, latest = started - DRIFT, now + FUTURE
    for name, at in (("time", record.time), ("first_token_at", first), ("ended_at", ended)):
        if at is not None and not earliest <= at <= latest:
            raise Unprocessable(f"{name} {at.isoformat()} is over a day before started_at or a day ahead")
    for name, text in (
        ("model", record.model),
        ("region", record.region),
        ("endpoint", record.endpoint),
        ("node_id", record.node_id or ""),
    ):
        if len(text) > LONGEST_NAME or "\0" in text:
            raise Unprocessable(f"{name} is longer than {LONGEST_NAME} characters or holds a NUL")
