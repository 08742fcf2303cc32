"""Postgres: a month's lines out to a file, and away. Functions take the connection first."""

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeAlias

import asyncpg

from billing.partition import Partition
from common.db import Connection
from common.errors import Conflict

Write: TypeAlias = Callable[[bytes], Coroutine[None, None, None]]
EDGE = timedelta(days=1)
"""A request may have begun a day before or after its id was made."""


async def copy_out(connection: Connection, partition: Partition, write: Write) -> None:
    """All columns as CSV with a head, in order of id."""
    await connection.copy_from_query(
        "select * from billing.usage where id >= $1 and id < $2 order by id",
        partition.first,
        partition.next,
        output=write,
        format="csv",
        header=True,
    )


async def drop(
    connection: Connection,
    partition: Partition,
    first: datetime,
    following: datetime,
    *,
    lines: int,
    cost: int,
    sha256: str,
) -> None:
    """Raises Conflict where the file does not have all of it, or it is not billed."""
    try:
        await connection.execute(
            "select billing.drop_partition($1, $2, $3, $4, $5, $6, $7, $8)",
            partition.name,
            partition.first,
            partition.next,
            first - EDGE,
            following + EDGE,
            lines,
            Decimal(cost),
            sha256,
        )
    except asyncpg.RaiseError as error:
        raise Conflict(str(error)) from error
    except asyncpg.UndefinedTableError as error:
        raise Conflict(f"{partition.name} is not there") from error


async def names(connection: Connection) -> set[str]:
    """Of the partitions that are archived."""
    return {row["name"] for row in await connection.fetch("select name from billing.archived")}
