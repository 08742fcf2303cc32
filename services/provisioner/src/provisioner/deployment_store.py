"""Postgres: deployments, the generations of their specs, and how many replicas each is to have."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec

from common.db import Connection
from common.deployments import Spec
from common.errors import Conflict


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    model: str
    generation: int
    """Counts what its machines are made of; each new one replaces them."""
    good_generation: int
    """The last of which a node became ready; 0: none yet."""
    replicas: int
    """Wanted now."""
    waiting: str
    """Why there are fewer than wanted; empty when nothing is in the way."""
    status: Literal["active", "deleting", "deleted"]
    spec: Spec
    created_at: datetime
    updated_at: datetime


async def create(connection: Connection, id: UUID, spec: Spec, replicas: int) -> None:
    """Raises Conflict when the name is taken."""
    try:
        await connection.execute(
            "insert into provisioner.deployments (id, name, model, launcher, replicas) values ($1, $2, $3, $4, $5)",
            id,
            spec.name,
            spec.model,
            spec.launcher,
            replicas,
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(f"there is a deployment {spec.name} already", param="name") from error
    await _keep(connection, id, 1, spec)


async def listed(connection: Connection) -> list[Deployment]:
    """All that are not deleted, oldest first."""
    rows = await connection.fetch("select * from provisioner.current_deployments where status <> 'deleted' order by id")
    return [_deployment(row) for row in rows]


async def one(connection: Connection, id: UUID, *, lock: bool = False) -> Deployment | None:
    """A deleted one as well; `lock` keeps others from changing it before the transaction ends."""
    if lock:
        await connection.execute("select from provisioner.deployments where id = $1 for update", id)
    row = await connection.fetchrow("select * from provisioner.current_deployments where id = $1", id)
    return _deployment(row) if row else None


async def of_model(connection: Connection, model: str) -> list[Deployment]:
    """Those that are active, locked until the transaction ends, in order of id."""
    await connection.execute(
        "select from provisioner.deployments where model = $1 and status = 'active' order by id for update", model
    )
    rows = await connection.fetch(
        "select * from provisioner.current_deployments where model = $1 and status = 'active' order by id", model
    )
    return [_deployment(row) for row in rows]


async def change(connection: Connection, id: UUID, generation: int, spec: Spec, replicas: int) -> None:
    """A generation that is there already is written anew: its machines stay as they are."""
    await connection.execute(
        "update provisioner.deployments set generation = $2, replicas = $3, updated_at = now() where id = $1",
        id,
        generation,
        replicas,
    )
    await _keep(connection, id, generation, spec)


async def scale(connection: Connection, id: UUID, replicas: int) -> None:
    await connection.execute(
        "update provisioner.deployments set replicas = $2, updated_at = now() where id = $1 and replicas <> $2",
        id,
        replicas,
    )


async def wait(connection: Connection, id: UUID, reason: str) -> None:
    await connection.execute(
        "update provisioner.deployments set waiting = $2 where id = $1 and waiting <> $2", id, reason
    )


async def mark(connection: Connection, id: UUID, status: Literal["deleting", "deleted"]) -> None:
    await connection.execute(
        "update provisioner.deployments set status = $2, replicas = 0, updated_at = now() where id = $1", id, status
    )


async def proved(connection: Connection, id: UUID, generation: int) -> None:
    """A node of that generation became ready."""
    await connection.execute(
        "update provisioner.deployments set good_generation = $2 where id = $1 and good_generation < $2", id, generation
    )


async def specs(connection: Connection, ids: Sequence[UUID]) -> dict[tuple[UUID, int], Spec]:
    """Of every generation of these deployments."""
    rows = await connection.fetch(
        "select deployment_id, generation, spec from provisioner.generations where deployment_id = any($1::uuid[])", ids
    )
    return {(row["deployment_id"], row["generation"]): _spec(row["spec"]) for row in rows}


async def next_version(connection: Connection) -> int:
    """Of the snapshot for the scheduler."""
    return int(await connection.fetchval("select nextval('provisioner.snapshots')"))


async def _keep(connection: Connection, id: UUID, generation: int, spec: Spec) -> None:
    await connection.execute(
        """
        insert into provisioner.generations (deployment_id, generation, spec) values ($1, $2, $3)
        on conflict (deployment_id, generation) do update set spec = excluded.spec
        """,
        id,
        generation,
        msgspec.json.encode(spec).decode(),
    )


def _deployment(row: asyncpg.Record) -> Deployment:
    return Deployment(**{**row, "spec": _spec(row["spec"])})


def _spec(text: str) -> Spec:
    return msgspec.json.decode(text, type=Spec)
