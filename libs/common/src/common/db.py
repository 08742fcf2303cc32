"""Postgres: a bounded pool, and numbered migrations that never change once applied."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TypeAlias

import asyncpg

from common.errors import SettingsError, Unavailable

# quoted: they take a parameter only in the stubs
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

UNREACHABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.SerializationError,
    asyncpg.exceptions.DiskFullError,
    ConnectionError,
    TimeoutError,
    OSError,
)
"""Failures that a later try may not meet."""


@asynccontextmanager
async def open_pool(dsn: str, name: str, size: int = 8) -> AsyncIterator[Pool]:
    pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        command_timeout=30,
        timeout=5,
        server_settings={"application_name": name, "timezone": "UTC", "idle_in_transaction_session_timeout": "60000"},
    )
    try:
        yield pool
    finally:
        pool.terminate()  # every write is a transaction of its own; nothing waits here


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction; raises Unavailable where trying again later makes sense."""
    try:
        async with pool.acquire(timeout=5) as connection, connection.transaction():
            yield connection
    except UNREACHABLE as error:
        raise Unavailable(f"the database is not available: {error!r}") from error


@asynccontextmanager
async def session(dsn: str, name: str) -> AsyncIterator[Connection]:
    """A connection of its own, whose locks end with it. Raises Unavailable, inside the block as well.

    The server ends a session that is silent for 15 s, so that the lock of a machine that vanished is released.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=3,
            command_timeout=3,
            server_settings={"application_name": name, "idle_session_timeout": "15000"},
        )
        try:
            yield connection
        finally:
            connection.terminate()
    except UNREACHABLE as error:
        raise Unavailable(f"the database is not available: {error!r}") from error


async def try_lock(connection: Connection, name: str) -> bool:
    """Take the advisory lock of that name for this session, unless another session holds it."""
    return bool(await connection.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", name))


async def migrate(pool: Pool, package: str) -> None:
    """Apply `<package>/migrations/NNNN_*.sql` in order, once each, whoever else is starting at the same time.

    The schema is named after the package. Raises SettingsError when an applied file has changed since.
    """
    scripts = sorted(
        (entry.name, entry.read_text())
        for entry in (files(package) / "migrations").iterdir()
        if entry.name.endswith(".sql")
    )
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"migrate.{package}")
        await connection.execute("set local lock_timeout = '5s'")
        await connection.execute(f'create schema if not exists "{package}"')
        await connection.execute(
            f'create table if not exists "{package}".migrations '
            "(name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        )
        rows = await connection.fetch(f'select name, checksum from "{package}".migrations')  # noqa: S608  a package of ours
        applied = {row["name"]: row["checksum"] for row in rows}
        for name, script in scripts:
            checksum = hashlib.sha256(script.encode()).hexdigest()
            if name in applied:
                if applied[name] != checksum:
                    raise SettingsError(f"migration {package}/{name} was changed after it was applied")
                continue
            await connection.execute(script)
            await connection.execute(
                f'insert into "{package}".migrations (name, checksum) values ($1, $2)',  # noqa: S608
                name,
                checksum,
            )
