"""The gateway's tables. Functions take the connection first; the caller's transaction is theirs."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Meta

from common.db import Connection
from gateway.live import Caller, Layer

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


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    email: str
    plan: str
    status: Literal["active", "suspended"]
    limits: Limits
    created_at: datetime
    environments: tuple[Environment, ...] = ()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    tenant_id: UUID
    environment_id: UUID
    name: str
    prefix: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    models: tuple[str, ...] | None
    budget_usd: Decimal | None
    expires_at: datetime | None
    created_at: datetime
    revoked_at: datetime | None


KEY_COLUMNS = (
    "id, tenant_id, environment_id, name, prefix, requests_per_minute, tokens_per_minute, max_concurrency, models, "
    "budget_usd, expires_at, created_at, revoked_at"
)


async def caller(connection: Connection, digest: bytes) -> Caller | None:
    row = await connection.fetchrow(
        """
        select k.id, k.tenant_id, k.environment_id, e.region, k.models, k.expires_at, t.status,
               t.limits as tenant_limits, e.limits as environment_limits,
               k.requests_per_minute, k.tokens_per_minute, k.max_concurrency
        from gateway.api_keys k
        join gateway.tenants t on t.id = k.tenant_id
        join gateway.environments e on e.id = k.environment_id
        where k.hash = $1 and k.revoked_at is null
        """,
        digest,
    )
    if row is None:
        return None
    tenant = msgspec.json.decode(row["tenant_limits"], type=Limits)
    environment = msgspec.json.decode(row["environment_limits"], type=Limits)
    key = Limits(row["requests_per_minute"], row["tokens_per_minute"], row["max_concurrency"])
    layers = (
        Layer("tenant", str(row["tenant_id"]), *msgspec.structs.astuple(tenant)),
        Layer("environment", str(row["environment_id"]), *msgspec.structs.astuple(environment)),
        Layer("key", str(row["id"]), *msgspec.structs.astuple(key)),
    )
    return Caller(
        api_key_id=row["id"],
        tenant_id=row["tenant_id"],
        environment_id=row["environment_id"],
        region=row["region"],
        models=None if row["models"] is None else frozenset(row["models"]),
        expires_at=row["expires_at"],
        suspended=row["status"] == "suspended",
        limits=tuple(
            layer
            for layer, limits in zip(layers, (tenant, environment, key), strict=True)
            if any(limit is not None for limit in msgspec.structs.astuple(limits))
        ),
    )


async def add_tenant(connection: Connection, id: UUID, name: str, email: str, plan: str) -> None:
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


async def tenants(connection: Connection, id: UUID | None = None) -> list[Tenant]:
    """All, oldest first, or the one."""
    rows = await connection.fetch(
        """
        select t.id, t.name, t.email, t.plan, t.status, t.limits, t.created_at,
               e.id as environment_id, e.name as environment, e.region, e.limits as environment_limits
        from gateway.tenants t join gateway.environments e on e.tenant_id = t.id
        where $1::uuid is null or t.id = $1
        order by t.id, e.id
        """,
        id,
    )
    found: dict[UUID, list[asyncpg.Record]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return [
        Tenant(
            id=tenant,
            name=rows[0]["name"],
            email=rows[0]["email"],
            plan=rows[0]["plan"],
            status=rows[0]["status"],
            limits=msgspec.json.decode(rows[0]["limits"], type=Limits),
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


async def set_tenant(connection: Connection, tenant: Tenant) -> None:
    await connection.execute(
        "update gateway.tenants set name = $2, email = $3, plan = $4, status = $5, limits = $6 where id = $1",
        tenant.id,
        tenant.name,
        tenant.email,
        tenant.plan,
        tenant.status,
        msgspec.json.encode(tenant.limits).decode(),
    )


async def set_environment(connection: Connection, environment: Environment) -> None:
    await connection.execute(
        "update gateway.environments set region = $2, limits = $3 where id = $1",
        environment.id,
        environment.region,
        msgspec.json.encode(environment.limits).decode(),
    )


async def lock_tenant(connection: Connection, id: UUID) -> bool:
    """Two changes of one tenant follow one another. False when there is none."""
    return await connection.fetchval("select 1 from gateway.tenants where id = $1 for update", id) is not None


async def hashes(connection: Connection, tenant_id: UUID) -> list[str]:
    """SHA-256 in hex of every key of a tenant that can still be used."""
    rows = await connection.fetch(
        "select hash from gateway.api_keys where tenant_id = $1 and revoked_at is null", tenant_id
    )
    return [row["hash"].hex() for row in rows]


async def add_key(connection: Connection, key: ApiKey, digest: bytes) -> None:
    await connection.execute(
        """
        insert into gateway.api_keys (id, tenant_id, environment_id, name, prefix, hash, requests_per_minute,
            tokens_per_minute, max_concurrency, models, budget_usd, expires_at, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        key.id,
        key.tenant_id,
        key.environment_id,
        key.name,
        key.prefix,
        digest,
        key.requests_per_minute,
        key.tokens_per_minute,
        key.max_concurrency,
        None if key.models is None else list(key.models),
        key.budget_usd,
        key.expires_at,
        key.created_at,
    )


async def api_keys(connection: Connection, tenant_id: UUID) -> list[ApiKey]:
    rows = await connection.fetch(
        "select " + KEY_COLUMNS + " from gateway.api_keys where tenant_id = $1 order by id",  # noqa: S608  a constant
        tenant_id,
    )
    return [msgspec.convert(dict(row), ApiKey) for row in rows]


async def revoke_key(connection: Connection, id: UUID, at: datetime) -> tuple[UUID, str] | None:
    """The tenant and the key's SHA-256 in hex; None when there is no such key. Revoking twice changes nothing."""
    row = await connection.fetchrow(
        "update gateway.api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1 returning tenant_id, hash",
        id,
        at,
    )
    return None if row is None else (row["tenant_id"], row["hash"].hex())
