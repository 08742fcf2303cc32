"""Which of several records of one request holds. Pure, and a total order: the order of arrival does not matter."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import msgspec

from common.events import UsageRecorded

Rank: TypeAlias = tuple[bool, int, int, datetime, bytes]


def rank(event: UsageRecorded) -> Rank:
    """The greatest holds. `gateway_lost` is the reaper's provisional record and yields to any other; of two of a kind
    the one that tells of more tokens holds, and whatever else differs is decided by an arbitrary but fixed order.
    """
    return (
        event.outcome != "gateway_lost",
        event.output_tokens,
        event.input_tokens,
        event.ended_at,
        msgspec.json.encode(event),
    )


def strongest(events: Iterable[UsageRecorded]) -> dict[UUID, UsageRecorded]:
    """The record of each id that holds, in order of id."""
    found: dict[int, UsageRecorded] = {}  # as numbers ids compare and hash many times faster
    for event in events:
        known = found.get(event.id.int)
        if known is None or rank(event) > rank(known):
            found[event.id.int] = event
    return {found[number].id: found[number] for number in sorted(found)}
