"""`/admin/nodes` on `rpc.scheduler`. Any replica answers; the leader is poked to read what was written."""

import asyncio
import logging
from contextlib import suppress
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from common.bus import Bus
from common.db import Pool, transaction
from common.errors import NotFound, Unavailable
from common.ids import new_id
from common.probed import PROBED, Probes, Span
from common.routing import Node, Policy
from common.rpc import Call, Router
from scheduler import drains, policies, probes, store, tokens
from scheduler.endpoint import normalised
from scheduler.health import Wanted
from scheduler.leases import Leases
from scheduler.probe import Prober

log = logging.getLogger(__name__)

POKE = "scheduler.poke"
PATIENCE = 1.0
"""Seconds that an answer waits for the leader to find a node ready."""


class Admin(msgspec.Struct, frozen=True):
    """What the routes work with."""

    pool: Pool
    bus: Bus
    leases: Leases
    prober: Prober


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoint: Annotated[str, Meta(max_length=512)]
    region: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] | None = None
    api_key: Annotated[str, Meta(max_length=1024, pattern=r"^[\x21-\x7e]*$")] | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] | None = None
    max_concurrency: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    revision: Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9._/-]*\Z")] | None = None
    """Of the weights; streams are continued only between nodes of the same one."""
    continuation: bool | None = None
    """False: what is streamed from it is not kept, and ends when it is lost."""
    deployment_id: UUID | None = None
    new_token: bool = False
    """Issue another token to the node's agent; the one before is worth nothing then."""

    risk: Annotated[float, Meta(ge=0, le=1)] | None = None
    """That it is taken away soon, as a spot machine may be: others are preferred to it."""


class Listed(store.View, frozen=True, kw_only=True):
    live: int | None
    """Requests on it now; None while Redis does not answer."""


class Registered(Listed, frozen=True, kw_only=True):
    token: str | None
    """By which the node's agent speaks on `/nodes/{id}/*`; shown once, None when it has one."""


class Nodes(msgspec.Struct, frozen=True):
    nodes: list[Listed]


class Deleted(msgspec.Struct, frozen=True):
    id: str
    deleted: bool = True


class Placing(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]


class Placements(msgspec.Struct, frozen=True):
    placements: tuple[Policy, ...]


class Unplaced(msgspec.Struct, frozen=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]


router: Router[Admin] = Router()


@router.route("POST", "/admin/nodes", status=201)
async def register(admin: Admin, call: Call) -> Registered:
    """Known endpoints are updated where a field is given, and keep their id and state."""
    asked = call.parse(Registration)
    endpoint = normalised(asked.endpoint)
    async with transaction(admin.pool) as connection:
        id = await store.register(
            connection,
            id=str(new_id()),
            endpoint=endpoint,
            region=asked.region,
            api_key=asked.api_key,
            weight=asked.weight,
            max_concurrency=asked.max_concurrency,
            revision=asked.revision,
            continuation=asked.continuation,
            risk=asked.risk,
            deployment_id=asked.deployment_id,
        )
        token = tokens.new()
        issued = await tokens.issue(connection, id, token, again=asked.new_token)
        node = next(node for node in await store.nodes(connection) if node.id == id)
    log.info("%s registered node %s at %s", call.actor, id, endpoint)
    await poke(admin)
    if node.state == "warming":
        await _introduce(admin, node)
    listed = await _one(admin, id)
    return Registered(**msgspec.structs.asdict(listed), token=token if issued else None)


@router.route("GET", PROBED)
async def probed(admin: Admin, call: Call) -> Probes:
    asked = call.parse_query(Span)
    async with transaction(admin.pool) as connection:
        return Probes(await probes.between(connection, asked.since, asked.until))


@router.route("GET", "/admin/nodes")
async def list_nodes(admin: Admin, call: Call) -> Nodes:
    async with transaction(admin.pool) as connection:
        views = await store.views(connection)
    return Nodes(await _listed(admin, views))


@router.route("GET", "/admin/nodes/{id}")
async def read(admin: Admin, call: Call, id: str) -> Listed:
    return await _one(admin, id)


@router.route("POST", "/admin/nodes/{id}/drain")
async def drain(admin: Admin, call: Call, id: str) -> Listed:
    """No new requests; those on it go on. A drain is not undone: register the endpoint anew after removing it."""
    if not await drains.drain(admin.pool, admin.bus, id, f"{call.actor} drains it"):
        raise _missing(id)
    log.info("%s drains node %s", call.actor, id)
    await poke(admin)
    return await _one(admin, id)


@router.route("DELETE", "/admin/nodes/{id}")
async def remove(admin: Admin, call: Call, id: str) -> Deleted:
    async with transaction(admin.pool) as connection:
        if not await store.remove(connection, id):
            raise _missing(id)
    log.info("%s removed node %s", call.actor, id)
    await poke(admin)
    return Deleted(id)


@router.route("PUT", "/admin/placements")
async def put_placement(admin: Admin, call: Call) -> Policy:
    """What is not given is by default. The model need not be served yet."""
    policy = call.parse(Placing)
    async with transaction(admin.pool) as connection:
        await policies.put(connection, policy)
    log.info("%s places %s by %s", call.actor, policy.model, policy.strategy)
    await poke(admin)
    return policy


@router.route("GET", "/admin/placements")
async def list_placements(admin: Admin, call: Call) -> Placements:
    async with transaction(admin.pool) as connection:
        return Placements(await policies.policies(connection))


@router.route("DELETE", "/admin/placements")
async def remove_placement(admin: Admin, call: Call) -> Unplaced:
    """`?model=` is placed by default again."""
    asked = call.parse_query(Unplaced)
    async with transaction(admin.pool) as connection:
        if not await policies.remove(connection, asked.model):
            raise NotFound("this model is placed by default", param="model")
    await poke(admin)
    return asked


async def _introduce(admin: Admin, node: Node) -> None:
    """Say in the first answer already what it serves, and that it is ready, if that is soon found out."""
    seen = await admin.prober.look(node, Wanted(models=True, token=False))
    if not seen.models:
        return
    async with transaction(admin.pool) as connection:
        await store.save_models(connection, node.id, seen.models)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                async with transaction(admin.pool) as connection:
                    views = await store.views(connection, node.id)
                if not views or views[0].state != "warming":
                    return
                await asyncio.sleep(0.05)


async def _one(admin: Admin, id: str) -> Listed:
    async with transaction(admin.pool) as connection:
        views = await store.views(connection, id)
    if not views:
        raise _missing(id)
    return (await _listed(admin, views))[0]


async def _listed(admin: Admin, views: list[store.View]) -> list[Listed]:
    live: dict[str, int] = {}
    with suppress(Unavailable):
        live = await admin.leases.live([view.id for view in views])
    return [Listed(**msgspec.structs.asdict(view), live=live.get(view.id)) for view in views]


async def poke(admin: Admin) -> None:
    with suppress(Unavailable):  # the leader reads every few seconds anyway
        await admin.bus.tell(POKE, b"")


def _missing(id: str) -> NotFound:
    return NotFound("there is no such node", param="id")
