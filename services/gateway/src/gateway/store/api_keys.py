"""API keys, stored as SHA-256."""

from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from common.db import Connection

Scope: TypeAlias = Literal["inference", "usage:read", "models:read"]
ALL_SCOPES: tuple[Scope, ...] = ("inference", "usage:read", "models:read")


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
    scopes: tuple[Scope, ...] = ALL_SCOPES
    last_used_at: datetime | None = None
    """To within the minute."""
    replaced_by: UUID | None = None
    """The key that it was rotated to."""


_COLUMNS = (
    "id, tenant_id, environment_id, name, prefix, requests_per_minute, tokens_per_minute, max_concurrency, models, "
    "budget_usd, expires_at, created_at, revoked_at, scopes, last_used_at, "
    "replaced_by"
)
_OF_TENANT = "select " + _COLUMNS + " from gateway.api_keys where tenant_id = $1 order by id"  # noqa: S608  constants
_ONE = "select " + _COLUMNS + " from gateway.api_keys where id = $1 for update"  # noqa: S608


async def hashes(connection: Connection, tenant_id: UUID) -> list[str]:
    """SHA-256 in hex of every key of a tenant that can still be used."""
    rows = await connection.fetch(
        "select hash from gateway.api_keys where tenant_id = $1 and revoked_at is null", tenant_id
    )
    return [row["hash"].hex() for row in rows]


async def add(connection: Connection, key: ApiKey, digest: bytes) -> None:
    await connection.execute(
        """
        insert into gateway.api_keys (id, tenant_id, environment_id, name, prefix, hash, requests_per_minute,
            tokens_per_minute, max_concurrency, models, budget_usd, expires_at, created_at, scopes)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
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
        list(key.scopes),
    )


async def of_tenant(connection: Connection, tenant_id: UUID) -> list[ApiKey]:
    return [msgspec.convert(dict(row), ApiKey) for row in await connection.fetch(_OF_TENANT, tenant_id)]


async def lock(connection: Connection, id: UUID) -> ApiKey | None:
    """Two changes of one key follow one another."""
    row = await connection.fetchrow(_ONE, id)
    return None if row is None else msgspec.convert(dict(row), ApiKey)


async def change(connection: Connection, key: ApiKey) -> str:
    """Write what may change of a key; returns its SHA-256 in hex."""
    digest = await connection.fetchval(
        """
        update gateway.api_keys set name = $2, requests_per_minute = $3, tokens_per_minute = $4, max_concurrency = $5,
            models = $6, budget_usd = $7, expires_at = $8, revoked_at = $9, scopes = $10,
            replaced_by = $11
        where id = $1 returning hash
        """,
        key.id,
        key.name,
        key.requests_per_minute,
        key.tokens_per_minute,
        key.max_concurrency,
        None if key.models is None else list(key.models),
        key.budget_usd,
        key.expires_at,
        key.revoked_at,
        list(key.scopes),
        key.replaced_by,
    )
    return str(digest.hex())


async def used(connection: Connection, times: dict[UUID, datetime]) -> None:
    """Remember when keys were last used. In the order of ids, so that two gateways do not wait for one another."""
    await connection.execute(
        """
        with used as (
            select u.id, u.at from unnest($1::uuid[], $2::timestamptz[]) as u (id, at)
            join gateway.api_keys k on k.id = u.id order by u.id for update of k
        )
        update gateway.api_keys k set last_used_at = used.at
        from used where k.id = used.id and (k.last_used_at is null or k.last_used_at < used.at)
        """,
        list(times),
        list(times.values()),
    )
