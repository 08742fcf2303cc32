"""The nodes as the leading replica knows them: configuration from Postgres, health from its own eyes."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from common.events import NodeLost, NodeRegistered
from common.routing import Node
from scheduler.health import Seen, Vital, judge


class Registry:
    def __init__(self, new_id: Callable[[], UUID]) -> None:
        self._new_id = new_id
        self.vitals: dict[str, Vital] = {}
        self.unsaved: set[str] = set()
        """Ids whose health in Postgres is not what is known here."""
        self.events: list[NodeRegistered | NodeLost] = []
        """Not yet published, oldest first."""
        self.loaded = False
        """Postgres has been read since this replica leads; before that nothing may be published."""
        self.routes_changed = asyncio.Event()
        self.health_changed = asyncio.Event()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.vitals[id].node for id in sorted(self.vitals))

    def clear(self) -> None:
        """Another replica leads: what is known here grows old."""
        self.loaded = False
        self.vitals.clear()
        self.unsaved.clear()
        self.events.clear()

    def merge(self, rows: Sequence[Node]) -> None:
        """Take over what admins have written. Health is kept, but for a drain, which only admins decide."""
        before = self.nodes if self.loaded else None
        self.loaded = True
        self.vitals = {row.id: _merged(self.vitals.get(row.id), row) for row in rows}
        self.unsaved &= self.vitals.keys()
        if self.nodes != before:
            self.routes_changed.set()

    @property
    def saveable(self) -> list[Vital]:
        """What is to be saved now: an event goes out before the state that caused it, so that no crash loses one."""
        untold = {event.node_id for event in self.events}
        return [self.vitals[id] for id in sorted(self.unsaved - untold)]

    def saved(self, vital: Vital) -> None:
        now = self.vitals.get(vital.node.id)
        if now is None or (now.node, now.reason) == (vital.node, vital.reason):
            self.unsaved.discard(vital.node.id)

    def told(self, event: NodeRegistered | NodeLost) -> None:
        if event in self.events:
            self.events.remove(event)
            self.health_changed.set()

    def saw(self, id: str, seen: Seen, now: float, time: datetime) -> None:
        """A node that was removed meanwhile stays removed."""
        before = self.vitals.get(id)
        if before is None:
            return
        after = self.vitals[id] = judge(before, seen, now, time)
        if (after.node, after.reason) == (before.node, before.reason):
            return
        self.unsaved.add(id)
        if event := _event(before, after, self._new_id(), time):
            self.events.append(event)
        self.health_changed.set()
        self.routes_changed.set()


def _merged(known: Vital | None, row: Node) -> Vital:
    if known is None:
        return Vital(node=row)
    state = "draining" if row.state == "draining" else known.node.state
    return msgspec.structs.replace(known, node=msgspec.structs.replace(row, state=state, models=known.node.models))


def _event(before: Vital, after: Vital, id: UUID, time: datetime) -> NodeRegistered | NodeLost | None:
    node = after.node
    match before.node.state, node.state:
        case "warming", "ready":
            return NodeRegistered(
                id=id,
                time=time,
                node_id=node.id,
                endpoint=node.endpoint,
                region=node.region,
                models=tuple(model.id for model in node.models),
            )
        case "ready", "unhealthy":
            return NodeLost(id=id, time=time, node_id=node.id, reason=after.reason)
    return None
