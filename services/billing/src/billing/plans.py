"""The writes of plans: a new version of one, and a tenant put on one; never for hours that were charged otherwise."""

from datetime import datetime
from uuid import UUID

from billing import plan_store, store
from billing.entitlement import HOUR, Assignment, Version, hour_of
from billing.pricing import Book
from common.db import Connection, Pool, transaction
from common.errors import InvalidRequest
from common.plans import Plan


async def put_version(
    pool: Pool, *, id: UUID, plan: Plan, free_monthly: int, unit_hour: int, effective_from: datetime | None, by: str
) -> Version:
    """In force from a whole hour on, this one where none is given. Raises InvalidRequest for one that has ended."""
    async with transaction(pool) as connection:
        await store.own_prices(connection)
        now = await store.now(connection)
        version = Version(
            id=id,
            plan=plan,
            free_monthly=free_monthly,
            unit_hour=unit_hour,
            effective_from=_checked(effective_from, hour_of(now)),
            created_at=now,
            created_by=by,
        )
        await plan_store.add_version(connection, version)
    return version


async def assign(
    pool: Pool, *, id: UUID, tenant_id: UUID, plan: Plan, units: int, effective_from: datetime | None, by: str
) -> Assignment:
    """Put a tenant on a plan; the same again changes nothing.

    Without `effective_from` from this hour on; where prices differ by plan, from the first hour of which nothing has
    been charged. Raises InvalidRequest for an earlier one.
    """
    async with transaction(pool) as connection:
        await store.own_prices(connection)
        now = await store.now(connection)
        known = await plan_store.assignments(connection, [tenant_id])
        if known and (known[-1].plan, known[-1].units) == (plan, units) and effective_from is None:
            return known[-1]
        assignment = Assignment(
            id=id,
            tenant_id=tenant_id,
            plan=plan,
            units=units,
            effective_from=_checked(effective_from, await _free(connection, tenant_id, now)),
            created_at=now,
            created_by=by,
        )
        await plan_store.assign(connection, assignment)
    return assignment


async def _free(connection: Connection, tenant_id: UUID, now: datetime) -> datetime:
    """The first hour for which a tenant may be put on another plan."""
    this = hour_of(now)
    if not Book(await store.prices(connection, None)).by_plan:
        return this
    last = await plan_store.last_hour(connection, tenant_id)
    return this if last is None or last < this else last + HOUR


def _checked(asked: datetime | None, free: datetime) -> datetime:
    at = free if asked is None else asked
    if at != hour_of(at):
        raise InvalidRequest("effective_from must be a whole hour", param="effective_from")
    if at < free:
        raise InvalidRequest(f"effective_from is before {free.isoformat()}", param="effective_from")
    return at
