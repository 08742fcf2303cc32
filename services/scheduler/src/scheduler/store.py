"""Postgres: the registered nodes. Functions take the connection first."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from common.db import Connection
from common.routing import Model, Node, State
from scheduler.health import Vital


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A node as admins see it: without its key."""

    id: str
    endpoint: str
    region: str
    state: State
    models: tuple[Model, ...]
    weight: float
    max_concurrency: int
    risk: float
    revision: str
    continuation: bool
    reason: str
    """Why it is not ready; empty when nothing is wrong."""
    created_at: datetime
    updated_at: datetime
    last_healthy_at: datetime | None
    last_heartbeat_at: datetime | None
    deployment_id: UUID | None


async def register(
    connection: Connection,
    *,
    id: str,
    endpoint: str,
    region: str | None,
    api_key: str | None,
    weight: float | None,
    max_concurrency: int | None,
    revision: str | None = None,
    continuation: bool | None = None,
    risk: float | None = None,
    deployment_id: UUID | None = None,
) -> str:
    """Insert, or update what is given for a known endpoint. Returns the node's id. An empty key is no key."""
    return str(
        await connection.fetchval(
            """
            insert into scheduler.nodes as node
                (id, endpoint, region, api_key, weight, max_concurrency, revision, continuation, risk, deployment_id)
            values ($1, $2, coalesce($3, ''), nullif($4, ''), coalesce($5, 1), coalesce($6, 0),
                coalesce($7, ''), coalesce($8, true), coalesce($9, 0), $10)
            on conflict (endpoint) do update set
                region = coalesce($3, node.region),
                api_key = nullif(coalesce($4, node.api_key), ''),
                weight = coalesce($5, node.weight),
                max_concurrency = coalesce($6, node.max_concurrency),
                revision = coalesce($7, node.revision),
                continuation = coalesce($8, node.continuation),
                risk = coalesce($9, node.risk),
                deployment_id = coalesce($10, node.deployment_id),
                updated_at = now()
            returning id
            """,
            id,
            endpoint,
            region,
            api_key,
            weight,
            max_concurrency,
            revision,
            continuation,
            risk,
            deployment_id,
        )
    )


async def nodes(connection: Connection) -> list[Node]:
    """All of them, with their keys, oldest first."""
    rows = await connection.fetch(
        """
        select id, endpoint, region, state, models, weight, max_concurrency, api_key, revision,
               continuation, deployment_id, risk
        from scheduler.nodes order by id
        """
    )
    return [
        Node(
            id=row["id"],
            endpoint=row["endpoint"],
            region=row["region"],
            state=row["state"],
            models=_models(row["models"]),
            weight=row["weight"],
            max_concurrency=row["max_concurrency"],
            api_key=row["api_key"],
            revision=row["revision"],
            continuation=row["continuation"],
            deployment_id=row["deployment_id"],
            risk=row["risk"],
        )
        for row in rows
    ]


async def views(connection: Connection, id: str | None = None) -> list[View]:
    """All nodes, or the one with this id, oldest first."""
    rows = await connection.fetch(
        """
        select id, endpoint, region, state, models, weight, max_concurrency, risk, revision, continuation, reason,
               created_at, updated_at, last_healthy_at, last_heartbeat_at, deployment_id
        from scheduler.nodes where $1::text is null or id = $1 order by id
        """,
        id,
    )
    return [View(**{**row, "models": _models(row["models"])}) for row in rows]


async def save_health(connection: Connection, vital: Vital) -> None:
    """A drain stays: only admins decide it. A node that was removed stays removed."""
    await connection.execute(
        """
        update scheduler.nodes set
            state = case when state = 'draining' then state else $2 end,
            models = $3,
            reason = $4,
            last_healthy_at = coalesce($5, last_healthy_at),
            updated_at = now()
        where id = $1
        """,
        vital.node.id,
        vital.node.state,
        msgspec.json.encode(vital.node.models).decode(),
        vital.reason,
        vital.healthy_at,
    )


async def save_healthy_at(connection: Connection, times: Mapping[str, datetime]) -> None:
    ids: Sequence[str] = sorted(times)
    await connection.execute(
        """
        update scheduler.nodes set last_healthy_at = seen.at
        from unnest($1::text[], $2::timestamptz[]) as seen (id, at) where nodes.id = seen.id
        """,
        ids,
        [times[id] for id in ids],
    )


async def save_models(connection: Connection, id: str, models: Sequence[Model]) -> None:
    await connection.execute(
        "update scheduler.nodes set models = $2 where id = $1", id, msgspec.json.encode(models).decode()
    )


async def drain(connection: Connection, id: str) -> bool:
    """For good. Returns whether there is such a node."""
    status = await connection.execute(
        """
        update scheduler.nodes set
            state = 'draining',
            updated_at = case when state = 'draining' then updated_at else now() end
        where id = $1
        """,
        id,
    )
    return status == "UPDATE 1"


async def remove(connection: Connection, id: str) -> bool:
    """Whether there was such a node."""
    return await connection.execute("delete from scheduler.nodes where id = $1", id) == "DELETE 1"


async def alive(connection: Connection) -> None:
    await connection.execute("select 1")


def _models(text: str) -> tuple[Model, ...]:
    return msgspec.json.decode(text, type=tuple[Model, ...])
