"""Postgres: the last request for capacity of each model. Functions take the connection first."""

from datetime import datetime
from uuid import UUID

import msgspec

from common.db import Connection


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    replicas: int
    epoch: int
    reason: str
    event_id: UUID
    requested_at: datetime


async def all(connection: Connection) -> dict[str, Asked]:
    rows = await connection.fetch(
        "select model, replicas, epoch, reason, event_id, requested_at from scheduler.scaling order by model"
    )
    return {row["model"]: Asked(**row) for row in rows}


async def ask(connection: Connection, asked: Asked) -> bool:
    """Whether it is the latest: a replica that believes that it leads still comes too late."""
    row = await connection.fetchrow(
        """
        insert into scheduler.scaling as known (model, replicas, epoch, reason, event_id, requested_at)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (model) do update set
            replicas = excluded.replicas, epoch = excluded.epoch, reason = excluded.reason,
            event_id = excluded.event_id, requested_at = excluded.requested_at
        where known.epoch < excluded.epoch
        returning model
        """,
        asked.model,
        asked.replicas,
        asked.epoch,
        asked.reason,
        asked.event_id,
        asked.requested_at,
    )
    return row is not None
