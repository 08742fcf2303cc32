"""Tenants and their environments."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

from common.db import Connection
from common.plans import DEFAULT, Plan
from common.tenants import Profile

Reason: TypeAlias = Literal["admin", "non_payment"]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=2_000_000_000)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrency: Limit | None = None


class Environment(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    region: str
    limits: Limits = Limits()


class BudgetOf(msgspec.Struct, frozen=True):
    monthly_usd: str
    hard: bool


Priority: TypeAlias = Literal["high", "normal", "low"]


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    email: str
    plan: Plan = DEFAULT
    """As asked for here last; which one is in force, and the budget, billing knows."""
    budget: BudgetOf | None = None
    status: Literal["active", "suspended"]
    suspended_for: tuple[Reason, ...] = ()
    """Suspended while there is any."""
    limits: Limits
    priority: Priority = "normal"
    """The class in which its requests wait where nodes are full."""
    weight: float = 1.0
    """Its share beside others of that class."""
    created_at: datetime
    environments: tuple[Environment, ...] = ()


async def add(connection: Connection, id: UUID, name: str, email: str, plan: Plan) -> None:
    await connection.execute(
        "insert into gateway.tenants (id, name, email, plan) values ($1, $2, $3, $4)", id, name, email, plan
    )


async def add_environment(connection: Connection, id: UUID, tenant_id: UUID, name: str, region: str) -> bool:
    """False when the tenant has one of that name."""
    status = await connection.execute(
        "insert into gateway.environments (id, tenant_id, name, region) values ($1, $2, $3, $4) on conflict do nothing",
        id,
        tenant_id,
        name,
        region,
    )
    return status.endswith(" 1")


async def read(connection: Connection, id: UUID | None = None) -> list[Tenant]:
    """All, oldest first, or the one."""
    rows = await connection.fetch(
        """
        select t.id, t.name, t.email, t.plan, t.status, t.suspended_for, t.limits, t.priority, t.weight,
               t.created_at, e.id as environment_id, e.name as environment, e.region, e.limits as environment_limits
        from gateway.tenants t join gateway.environments e on e.tenant_id = t.id
        where $1::uuid is null or t.id = $1
        order by t.id, e.id
        """,
        id,
    )
    found: dict[UUID, list[Any]] = {}  # Any: asyncpg's records
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return [
        Tenant(
            id=tenant,
            name=rows[0]["name"],
            email=rows[0]["email"],
            plan=rows[0]["plan"],
            status=rows[0]["status"],
            suspended_for=_reasons(rows[0]["status"], rows[0]["suspended_for"]),
            limits=msgspec.json.decode(rows[0]["limits"], type=Limits),
            priority=rows[0]["priority"],
            weight=rows[0]["weight"],
            created_at=rows[0]["created_at"],
            environments=tuple(
                Environment(
                    row["environment_id"],
                    row["environment"],
                    row["region"],
                    msgspec.json.decode(row["environment_limits"], type=Limits),
                )
                for row in rows
            ),
        )
        for tenant, rows in found.items()
    ]


async def change(connection: Connection, tenant: Tenant) -> None:
    await connection.execute(
        """
        update gateway.tenants set name = $2, email = $3, plan = $4, status = $5, limits = $6, suspended_for = $7,
            priority = $8, weight = $9
        where id = $1
        """,
        tenant.id,
        tenant.name,
        tenant.email,
        tenant.plan,
        tenant.status,
        msgspec.json.encode(tenant.limits).decode(),
        list(tenant.suspended_for),
        tenant.priority,
        tenant.weight,
    )


async def page(connection: Connection, after: UUID, limit: int) -> list[Profile]:
    """Those with an id above `after`, in order of id."""
    rows = await connection.fetch(
        "select id, name, email, plan, status from gateway.tenants where id > $1 order by id limit $2", after, limit
    )
    return [Profile(**row) for row in rows]


async def change_environment(connection: Connection, environment: Environment) -> None:
    await connection.execute(
        "update gateway.environments set region = $2, limits = $3 where id = $1",
        environment.id,
        environment.region,
        msgspec.json.encode(environment.limits).decode(),
    )


async def lock(connection: Connection, id: UUID) -> bool:
    """Two changes of one tenant follow one another. False when there is none."""
    return await connection.fetchval("select 1 from gateway.tenants where id = $1 for update", id) is not None


def _reasons(status: str, reasons: list[Reason]) -> tuple[Reason, ...]:
    """An older version writes the status only."""
    if status == "active":
        return ()
    return tuple(reasons) or ("admin",)
