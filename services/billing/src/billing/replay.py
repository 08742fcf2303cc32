"""Events charged again, from the stream or from a file: known ones change nothing, an empty ledger becomes the same."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import BinaryIO

import msgspec

from billing import ledger
from billing.intake import ANY_AGE, UNKNOWN, read
from billing.known import Known
from billing.ledger import Archived, Unpriced
from common.db import Pool
from common.errors import Unprocessable
from common.events import UsageRecorded


class Refused(msgspec.Struct, frozen=True):
    reason: str
    body: str
    """As it came; bytes that are not UTF-8 are replaced."""


class Tally(msgspec.Struct):
    """What became of the events so far."""

    read: int = 0
    changed: int = 0
    """New in the ledger, or truer than what it had."""
    known: int = 0
    parked: int = 0
    """Not charged: they stay where they came from."""

    def line(self) -> str:
        return f"read {self.read}, new {self.changed}, already there {self.known}, parked {self.parked}"


async def charge(
    pool: Pool, known: Known | None, bodies: Sequence[bytes], now: datetime, tally: Tally
) -> list[Refused]:
    """As the consumer charges them; returns those that cannot be. Without `known` every tenant is taken for one.

    Raises Unavailable, then none is charged.
    """
    refused: list[Refused] = []
    events: list[UsageRecorded] = []
    kept: list[bytes] = []
    for body in bodies:
        try:
            events.append(read(body, now, ANY_AGE))
            kept.append(body)
        except Unprocessable as error:
            refused.append(_refused(body, str(error)))
    if known and (strangers := await known.strangers({event.tenant_id for event in events})):
        refused += [_refused(b, UNKNOWN) for b, e in zip(kept, events, strict=True) if e.tenant_id in strangers]
        kept = [body for body, event in zip(kept, events, strict=True) if event.tenant_id not in strangers]
        events = [event for event in events if event.tenant_id not in strangers]
    changed = 0
    while events:
        try:
            changed = await ledger.record(pool, events)
            break
        except (Unpriced, Archived) as unpriced:
            refused += [_refused(kept[index], reason) for index, reason in unpriced.reasons.items()]
            events = [event for index, event in enumerate(events) if index not in unpriced.reasons]
            kept = [body for index, body in enumerate(kept) if index not in unpriced.reasons]
    tally.read += len(bodies)
    tally.changed += changed
    tally.known += len(events) - changed
    tally.parked += len(refused)
    return refused


def saved(file: BinaryIO, size: int) -> Iterator[list[bytes]]:
    """Batches of a file of JSON lines, as `nats sub --raw` writes them; empty lines are passed over."""
    batch: list[bytes] = []
    for line in file:
        if line := line.strip():
            batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _refused(body: bytes, reason: str) -> Refused:
    return Refused(reason, body.decode("utf-8", "replace"))
