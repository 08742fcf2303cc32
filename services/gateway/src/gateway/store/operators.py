"""Operators: named, scoped tokens beside the root token, stored as SHA-256."""

from datetime import datetime
from uuid import UUID

import msgspec

from common.db import Connection


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


async def find(connection: Connection, digest: bytes) -> tuple[Operator, bytes] | None:
    """The operator whose token has this SHA-256, and the SHA-256 as stored."""
    row = await connection.fetchrow(
        """
        select id, name, prefix, scopes, created_by, created_at, expires_at, revoked_at, hash
        from gateway.operators where hash = $1
        """,
        digest,
    )
    return None if row is None else (msgspec.convert(dict(row), Operator), row["hash"])


async def add(connection: Connection, operator: Operator, digest: bytes) -> bool:
    """False when one of that name has not been revoked."""
    status = await connection.execute(
        """
        insert into gateway.operators (id, name, prefix, hash, scopes, created_by, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (name) where revoked_at is null do nothing
        """,
        operator.id,
        operator.name,
        operator.prefix,
        digest,
        list(operator.scopes),
        operator.created_by,
        operator.created_at,
        operator.expires_at,
    )
    return status.endswith(" 1")


async def read(connection: Connection) -> list[Operator]:
    """All, oldest first, revoked ones too."""
    rows = await connection.fetch(
        """
        select id, name, prefix, scopes, created_by, created_at, expires_at, revoked_at
        from gateway.operators order by id
        """
    )
    return [msgspec.convert(dict(row), Operator) for row in rows]


async def revoke(connection: Connection, id: UUID, at: datetime) -> str | None:
    """The name; None when there is no such operator. Revoking twice changes nothing."""
    name = await connection.fetchval(
        "update gateway.operators set revoked_at = coalesce(revoked_at, $2) where id = $1 returning name", id, at
    )
    return None if name is None else str(name)
