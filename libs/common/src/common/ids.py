"""UUIDv7: ids that sort by time and tell when they were made."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    return uuid7()


def time_of(id: UUID) -> datetime:
    """The millisecond in which a UUIDv7 was made (RFC 9562, 5.7)."""
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)


def first_id(at: datetime) -> UUID:
    """The smallest UUIDv7 of a millisecond: the lower bound of ids made from `at` on."""
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62))
