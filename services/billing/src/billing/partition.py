"""The ledger's partitions: months, as ranges of UUIDv7. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from common.ids import first_id, time_of


class Partition(msgspec.Struct, frozen=True, order=True):
    name: str
    first: UUID
    next: UUID
    """The first id of the month after."""


def partitions_of(ids: Iterable[UUID]) -> list[Partition]:
    """Those that the ids belong to, oldest first."""
    return [_month(year, month) for year, month in sorted({(at.year, at.month) for at in map(time_of, ids)})]


def _month(year: int, month: int) -> Partition:
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return Partition(f"usage_{year}_{month:02d}", first_id(datetime(year, month, 1, tzinfo=UTC)), first_id(after))
