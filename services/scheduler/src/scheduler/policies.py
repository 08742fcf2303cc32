"""Postgres: how the requests of each model are placed. Functions take the connection first."""

import msgspec

from common.db import Connection
from common.routing import Policy


async def policies(connection: Connection) -> tuple[Policy, ...]:
    """Of the models that have one of their own, in order."""
    rows = await connection.fetch("select policy from scheduler.placements order by model")
    return tuple(msgspec.json.decode(row["policy"], type=Policy) for row in rows)


async def put(connection: Connection, policy: Policy) -> None:
    await connection.execute(
        """
        insert into scheduler.placements (model, policy) values ($1, $2)
        on conflict (model) do update set policy = excluded.policy, updated_at = now()
        """,
        policy.model,
        msgspec.json.encode(policy).decode(),
    )


async def remove(connection: Connection, model: str) -> bool:
    """Whether it had one."""
    return await connection.execute("delete from scheduler.placements where model = $1", model) == "DELETE 1"
