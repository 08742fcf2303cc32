"""Postgres: versions of plans, and who is on which. Functions take the connection first."""

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.entitlement import Assignment, Version
from common.db import Connection


async def versions(connection: Connection) -> list[Version]:
    """All, in order of time."""
    rows = await connection.fetch("select * from billing.plans order by effective_from, id")
    return [
        Version(
            id=row["id"],
            plan=row["plan"],
            free_monthly=int(row["free_monthly_picousd"]),
            unit_hour=int(row["unit_hour_picousd"]),
            effective_from=row["effective_from"],
            created_at=row["created_at"],
            created_by=row["created_by"],
        )
        for row in rows
    ]


async def add_version(connection: Connection, version: Version) -> None:
    await connection.execute(
        """
        insert into billing.plans
            (id, plan, free_monthly_picousd, unit_hour_picousd, effective_from, created_at, created_by)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        version.id,
        version.plan,
        Decimal(version.free_monthly),
        Decimal(version.unit_hour),
        version.effective_from,
        version.created_at,
        version.created_by,
    )


async def assignments(connection: Connection, tenants: Collection[UUID]) -> list[Assignment]:
    """All of theirs, in order of time."""
    rows = await connection.fetch(
        """
        select id, tenant_id, plan, units, effective_from, created_at, created_by from billing.assignments
        where tenant_id = any($1) order by effective_from, id
        """,
        list(tenants),
    )
    return [Assignment(**row) for row in rows]


async def assign(connection: Connection, assignment: Assignment) -> None:
    await connection.execute(
        """
        insert into billing.assignments (id, tenant_id, plan, units, effective_from, created_at, created_by)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        assignment.id,
        assignment.tenant_id,
        assignment.plan,
        assignment.units,
        assignment.effective_from,
        assignment.created_at,
        assignment.created_by,
    )


async def last_hour(connection: Connection, tenant_id: UUID | None) -> datetime | None:
    """The last one in which usage was charged; of None, anybody's."""
    at = await connection.fetchval(
        "select max(hour) from billing.usage_hourly where $1::uuid is null or tenant_id = $1", tenant_id
    )
    assert at is None or isinstance(at, datetime)
    return at


async def turning(connection: Connection, since: datetime, hour: datetime) -> list[UUID] | None:
    """Tenants whose terms or credits begin or end after `since` and by `hour`; None: perhaps everybody's."""
    if await connection.fetchval(
        "select exists (select from billing.plans where effective_from > $1 and effective_from <= $2)", since, hour
    ):
        return None
    rows = await connection.fetch(
        """
        select tenant_id from billing.assignments where effective_from > $1 and effective_from <= $2
        union select tenant_id from billing.credits where expires_at > $1 and expires_at <= $2
        """,
        since,
        hour,
    )
    return [row["tenant_id"] for row in rows]
