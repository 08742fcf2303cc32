"""Postgres: requests to scale, and the capacity that is desired. Functions take the connection first."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from common.db import Connection
from common.events import ScaleRequested


class Desired(msgspec.Struct, frozen=True):
    model: str
    replicas: int
    epoch: int
    reason: str
    updated_at: datetime


async def add_requests(connection: Connection, requests: Sequence[ScaleRequested]) -> int:
    """Those whose id is known are left out; returns how many were new. In order of id, so that writers of the same
    requests wait for each other one way only."""
    ordered = sorted(requests, key=lambda request: request.id)
    rows = await connection.fetch(
        """
        insert into provisioner.scale_requests (id, time, model, replicas, epoch, reason)
        select * from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[], $6::text[])
        on conflict (id) do nothing returning id
        """,
        *([getattr(r, field) for r in ordered] for field in ("id", "time", "model", "replicas", "epoch", "reason")),
    )
    return len(rows)


async def desire(connection: Connection, requests: Sequence[ScaleRequested]) -> dict[str, int]:
    """At most one of each model, in order of model. A model's desire stays where it is of a later request.

    Returns the replicas of those that are new.
    """
    rows = await connection.fetch(
        """
        insert into provisioner.desired as known (model, replicas, epoch, reason, request_id)
        select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::uuid[])
        on conflict (model) do update set
            replicas = excluded.replicas, epoch = excluded.epoch, reason = excluded.reason,
            request_id = excluded.request_id, updated_at = now()
        where (excluded.epoch, excluded.request_id) > (known.epoch, known.request_id)
        returning model, replicas
        """,
        *([getattr(r, field) for r in requests] for field in ("model", "replicas", "epoch", "reason", "id")),
    )
    return {row["model"]: row["replicas"] for row in rows}


async def desired(connection: Connection) -> list[Desired]:
    """In order of model."""
    rows = await connection.fetch(
        "select model, replicas, epoch, reason, updated_at from provisioner.desired order by model"
    )
    return [Desired(**row) for row in rows]
