"""The text of a query to what was asked for. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import cast, get_args
from uuid import UUID

from billing.views import By
from common.errors import InvalidRequest, NotFound

_MONTH = re.compile(r"\A(20\d\d)-(0[1-9]|1[0-2])\Z", re.ASCII)


def moment(text: str, param: str) -> datetime:
    """An ISO 8601 date or time, in UTC where it names no zone. Raises InvalidRequest naming `param`."""
    try:
        # in a query an unescaped `+` of an offset arrives as a space
        at = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{param} is not an ISO 8601 time", param=param) from None


def tenant_of(text: str) -> UUID:
    """Raises NotFound for what is not an id: there is no such tenant."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"no tenant {text}", param="id") from None


def month(text: str, param: str) -> datetime:
    """The first moment of `2026-11`, in UTC. Raises InvalidRequest naming `param`."""
    if not (found := _MONTH.match(text)):
        raise InvalidRequest(f"{param} is not a month like 2026-11", param=param)
    return datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)


def hours(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Whole hours, as sums are kept: the first one partly in, the last one partly in. Raises InvalidRequest."""
    first = moment(since, "from") if since else None
    last = moment(until, "to") if until else None
    if first and last and last < first:
        raise InvalidRequest("to is before from", param="to")
    return (_floor(first) if first else None, _ceiling(last) if last else None)


def grouping(text: str) -> set[By]:
    """`model,day` as a set; raises InvalidRequest naming what cannot be grouped by."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := names - set(get_args(By)):
        raise InvalidRequest(
            f"cannot group by {', '.join(sorted(unknown))}; known are {', '.join(get_args(By))}", param="group_by"
        )
    return cast("set[By]", names)


def _floor(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _ceiling(at: datetime) -> datetime:
    floor = _floor(at)
    return floor if floor == at or floor == _floor(datetime.max.replace(tzinfo=UTC)) else floor + timedelta(hours=1)
