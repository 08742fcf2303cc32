"""`/nodes/*` on `rpc.scheduler`: what a node's agent tells of its node, by a token that only that node holds."""

import logging
from typing import Annotated

import msgspec
from msgspec import Meta

from common.db import transaction
from common.events import Time
from common.routing import State
from common.rpc import Call
from scheduler import drains, tokens
from scheduler.poller import SUSPECTED
from scheduler.routes import Admin, poke, router

__all__ = ["router"]

log = logging.getLogger(__name__)


class Beat(msgspec.Struct, frozen=True):
    healthy: bool = True
    """False: the agent cannot reach its engine, which is looked at at once. True makes no node ready."""


class Draining(msgspec.Struct, frozen=True):
    reason: Annotated[str, Meta(min_length=1, max_length=500)] = "the node says so"
    deadline: Time | None = None
    """When the machine goes, where that is known."""


class Told(msgspec.Struct, frozen=True):
    state: State
    """Of the node, as the scheduler has it; `draining` is for good."""


@router.route("POST", "/nodes/{id}/heartbeat")
async def heartbeat(admin: Admin, call: Call, id: str) -> Told:
    """Notes that the agent lives. What state the node is in, its engine decides: a drain stays."""
    beat = call.parse(Beat)
    async with transaction(admin.pool) as connection:
        await tokens.check(connection, id, call.token_sha256)
        state = await tokens.beat(connection, id)
    if not beat.healthy:
        await admin.bus.tell(SUSPECTED, id.encode())
    return Told(state)


@router.route("POST", "/nodes/{id}/draining")
async def draining(admin: Admin, call: Call, id: str) -> Told:
    """No new requests from now on: a spot notice, or whatever else the agent has heard."""
    asked = call.parse(Draining)
    async with transaction(admin.pool) as connection:
        await tokens.check(connection, id, call.token_sha256)
    await drains.drain(admin.pool, admin.bus, id, asked.reason, asked.deadline)
    log.info("node %s drains: %s", id, asked.reason)
    await poke(admin)
    return Told("draining")
