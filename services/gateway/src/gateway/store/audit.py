"""The audit log: appended to under one lock, read in the order of its numbers."""

from uuid import UUID

import msgspec

from common.db import Connection
from gateway.audit import FIRST, Entry, Sealed, seal

_COLUMNS = (
    "seq, id, time, actor, action, target, tenant_id, status, count, address, request_id, before_sha256, after_sha256, "
    "prev_hash, hash"
)
_AFTER = "select " + _COLUMNS + " from gateway.audit where seq > $1 order by seq limit $2"  # noqa: S608  constants
_PAGE = (
    "select " + _COLUMNS + " from gateway.audit "  # noqa: S608
    "where ($1::uuid is null or tenant_id = $1) and ($2::text is null or actor = $2) "
    "and ($3::bigint is null or seq < $3) order by seq desc limit $4"
)
_INSERT = (
    "insert into gateway.audit (" + _COLUMNS + ") "
    "values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
)


async def append(connection: Connection, entry: Entry) -> Sealed:
    """The last statement of a transaction: others who append wait until it ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('gateway.audit', 0))")
    # a statement of its own, to see what the one before us has committed
    last = await connection.fetchrow("select seq, hash from gateway.audit order by seq desc limit 1")
    sealed = seal(entry, 1 if last is None else last["seq"] + 1, FIRST if last is None else last["hash"])
    await connection.execute(
        _INSERT,
        sealed.seq,
        sealed.id,
        sealed.time,
        sealed.actor,
        sealed.action,
        sealed.target,
        sealed.tenant_id,
        sealed.status,
        sealed.count,
        sealed.address,
        sealed.request_id,
        sealed.before_sha256,
        sealed.after_sha256,
        sealed.prev_hash,
        sealed.hash,
    )
    return sealed


async def after(connection: Connection, seq: int, limit: int) -> list[Sealed]:
    """The next entries in the order of the chain."""
    return [msgspec.convert(dict(row), Sealed) for row in await connection.fetch(_AFTER, seq, limit)]


async def page(
    connection: Connection, tenant_id: UUID | None, actor: str | None, before: int | None, limit: int
) -> list[Sealed]:
    """The newest first."""
    rows = await connection.fetch(_PAGE, tenant_id, actor, before, limit)
    return [msgspec.convert(dict(row), Sealed) for row in rows]


async def published(connection: Connection) -> tuple[int, str]:
    """Number and hash of the last entry that was published."""
    row = await connection.fetchrow("select seq, hash from gateway.audit_published")
    return (0, FIRST) if row is None else (row["seq"], row["hash"])


async def lock_published(connection: Connection) -> int | None:
    """The number of the last entry published; None while another gateway is publishing."""
    seq = await connection.fetchval("select seq from gateway.audit_published for update skip locked")
    return None if seq is None else int(seq)


async def set_published(connection: Connection, seq: int, hash: str) -> None:
    await connection.execute("update gateway.audit_published set seq = $1, hash = $2", seq, hash)
