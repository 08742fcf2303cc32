"""Nodes that take no new requests any more: told by an admin, by the node itself, or on the stream; never undone."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from common.bus import Bus, encode
from common.consumer import Consumer, Rejected
from common.db import Pool, transaction
from common.events import NodeDraining, subject_of
from common.ids import new_id
from scheduler import store


async def drain(pool: Pool, bus: Bus, id: str, reason: str, deadline: datetime | None = None) -> bool:
    """Returns whether there is such a node. Dies this process in between, whoever asked has no answer and asks again;
    the stream keeps one event of a node. Raises Unavailable."""
    async with transaction(pool) as connection:
        if not await store.drain(connection, id):
            return False
    event = NodeDraining(id=new_id(), time=datetime.now(UTC), node_id=id, reason=reason, deadline=deadline)
    await bus.publish(subject_of(event), encode(event), f"node.draining.{id}")
    return True


def consumer(bus: Bus, pool: Pool, poke: str) -> Consumer:
    """Of what others say: the provisioner, of a spot notice. `poke`: the subject on which the leader is woken."""

    async def handle(bodies: Sequence[bytes]) -> None:
        events = _read(bodies)
        async with transaction(pool) as connection:
            for id in sorted({event.node_id for event in events}):
                await store.drain(connection, id)
        await bus.tell(poke, b"")

    return Consumer(bus, stream="FLEET", durable="scheduler", subject="node.draining.v1", handle=handle)


def _read(bodies: Sequence[bytes]) -> list[NodeDraining]:
    events: list[NodeDraining] = []
    reasons: dict[int, str] = {}
    for index, body in enumerate(bodies):
        try:
            events.append(msgspec.json.decode(body, type=NodeDraining))
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            reasons[index] = f"not a node that drains: {error}"
    if reasons:
        raise Rejected(reasons)
    return events
