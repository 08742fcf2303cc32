"""Postgres: every try to have a machine, from the intention to its end, and what it cost."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from common.db import Connection
from provisioner.choosing import Ended
from provisioner.launcher import Candidate, Failure
from provisioner.money import usd
from provisioner.reconcile import Launch, Start, State

MEMORY = timedelta(hours=2)
"""How long a launch that ended counts in what is tried next."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A launch as operators see it."""

    id: UUID
    deployment_id: UUID
    cluster: str
    generation: int
    state: State
    launcher: str
    cloud: str
    region: str
    accelerator: str
    accelerators: int
    spot: bool
    hourly_usd: str
    cost_usd: str
    """Of this machine so far."""
    node_id: str | None
    reason: str
    failure: Failure | None
    intended_at: datetime
    ready_at: datetime | None
    ended_at: datetime | None


async def intend(connection: Connection, id: UUID, start: Start, launcher: str) -> Launch | None:
    """Before anybody is called. None when somebody else has that slot's next epoch already."""
    epoch = await connection.fetchval(
        "select coalesce(max(epoch), 0) + 1 from provisioner.launches where deployment_id = $1 and slot = $2",
        start.deployment_id,
        start.slot,
    )
    row = await connection.fetchrow(
        """
        insert into provisioner.launches (
            id, deployment_id, slot, epoch, generation, cluster, launcher, state, cloud, region, accelerator,
            accelerators, choice, spot, hourly_microusd
        )
        values ($1, $2, $3, $4, $5, $6, $7, 'intended', $8, $9, $10, $11, $12, $13, $14)
        on conflict do nothing
        returning *
        """,
        id,
        start.deployment_id,
        start.slot,
        epoch,
        start.generation,
        cluster_name(start.deployment_id, start.slot, epoch),
        launcher,
        *(getattr(start.candidate, name) for name in ("cloud", "region", "accelerator", "count", "choice", "spot")),
        start.candidate.hourly_microusd,
    )
    return _launch(row) if row else None


async def now(connection: Connection) -> datetime:
    """The clock that all times of launches are of."""
    found: datetime = await connection.fetchval("select clock_timestamp()")
    return found


async def live(connection: Connection) -> list[Launch]:
    rows = await connection.fetch("select * from provisioner.live_launches order by id")
    return [_launch(row) for row in rows]


async def move(
    connection: Connection,
    launch: Launch,
    state: State,
    *,
    reason: str | None = None,
    failure: Failure | None = None,
    request_id: str | None = None,
    endpoint: str | None = None,
    node_id: str | None = None,
) -> bool:
    """From the state that it is known to be in to another; what is not given stays. False: it had moved already."""
    status = await connection.execute(
        """
        update provisioner.launches set
            state = $3, reason = coalesce($4, reason), failure = coalesce($5, failure),
            request_id = coalesce($6, request_id), endpoint = coalesce($7, endpoint), node_id = coalesce($8, node_id),
            state_at = case when state = $3 then state_at else now() end,
            ready_at = case when $3 = 'ready' then coalesce(ready_at, now()) else ready_at end,
            ended_at = case when $3 in ('gone', 'failed') then now() else ended_at end
        where id = $1 and state = $2
        """,
        launch.id,
        launch.state,
        state,
        reason,
        failure,
        request_id,
        endpoint,
        node_id,
    )
    return status == "UPDATE 1"


async def recently_ended(connection: Connection) -> list[Ended]:
    """Successes and failures that still count, in no order."""
    rows = await connection.fetch(
        """
        select deployment_id, generation, cloud, region, accelerator, accelerators as count, spot, null as failure,
            ready_at as at
        from provisioner.launches where ready_at > now() - $1::interval
        union all
        select deployment_id, generation, cloud, region, accelerator, accelerators, spot, failure,
            case when state in ('gone', 'failed') then ended_at else state_at end
        from provisioner.launches where failure is not null and state_at > now() - $1::interval
        """,
        MEMORY,
    )
    return [Ended(**row) for row in rows]


async def ended_clusters(connection: Connection, clusters: Sequence[str]) -> list[str]:
    """Of these, those that are known to have ended: what is still there of them is a leak."""
    rows = await connection.fetch(
        """
        select cluster from provisioner.launches
        where cluster = any($1::text[]) and state in ('gone', 'failed') order by cluster
        """,
        clusters,
    )
    return [row["cluster"] for row in rows]


async def spent_this_month(connection: Connection) -> dict[UUID, int]:
    """Micro-dollars, rounded up, by deployment; months are UTC's, as the pool's sessions are."""
    rows = await connection.fetch(
        """
        with month as (select date_trunc('month', now()) as begun)
        select deployment_id, ceil(sum(
            hourly_microusd * extract(epoch from coalesce(ended_at, now()) - greatest(intended_at, begun)) / 3600
        ))::bigint as microusd
        from provisioner.launches, month where coalesce(ended_at, now()) > begun group by deployment_id
        """
    )
    return {row["deployment_id"]: row["microusd"] for row in rows}


async def told(
    connection: Connection,
    *,
    deployment_id: UUID | None = None,
    id: UUID | None = None,
    before: UUID | None = None,
    limit: int = 100,
) -> list[Told]:
    """The newest first; `before` is the id that the page before ended with."""
    rows = await connection.fetch(
        """
        select * from provisioner.launch_costs
        where ($1::uuid is null or deployment_id = $1) and ($2::uuid is null or id = $2)
            and ($3::uuid is null or id < $3)
        order by id desc limit $4
        """,
        deployment_id,
        id,
        before,
        limit,
    )
    return [_told(row) for row in rows]


async def told_live(connection: Connection) -> list[Told]:
    rows = await connection.fetch(
        "select * from provisioner.launch_costs where state not in ('gone', 'failed') order by deployment_id, slot"
    )
    return [_told(row) for row in rows]


async def hourly(connection: Connection) -> str:
    """Dollars an hour of everything that has not ended."""
    return usd(await connection.fetchval("select coalesce(sum(hourly_microusd), 0) from provisioner.live_launches"))


def cluster_name(deployment_id: UUID, slot: int, epoch: int) -> str:
    """The same for the same intention, and for no other; short enough for every cloud."""
    return f"cl-{deployment_id.hex[:12]}{deployment_id.hex[-6:]}-{slot}-{epoch}"


def _launch(row: asyncpg.Record) -> Launch:
    candidate = {name: row[name] for name in Candidate.__struct_fields__ if name != "count"}
    fields = {name: row[name] for name in Launch.__struct_fields__ if name != "candidate"}
    return Launch(candidate=Candidate(count=row["accelerators"], **candidate), **fields)


def _told(row: asyncpg.Record) -> Told:
    fields = {name: row[name] for name in Told.__struct_fields__ if not name.endswith("_usd")}
    return Told(hourly_usd=usd(row["hourly_microusd"]), cost_usd=usd(row["cost_microusd"]), **fields)
