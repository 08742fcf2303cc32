"""The nodes as the leading replica knows them: configuration from Postgres, health from its own eyes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias
from uuid import UUID

import msgspec

from common import routing
from common.breaker import Breaker, Policy
from common.events import NodeLost, NodeRegistered
from common.routing import Node, Outcome
from scheduler.health import Seen, Spent, Vital, adopted, heard, judge
from scheduler.metrics import EJECTED, LATE, READMITTED

Cost: TypeAlias = tuple[str, datetime, str, str]
"""Node, hour, model, and what is counted: a column of the table of probes."""


class Registry:
    def __init__(self, new_id: Callable[[], UUID], policy: Policy = Policy()) -> None:  # noqa: B008  frozen
        self._new_id, self._policy = new_id, policy
        self.vitals: dict[str, Vital] = {}
        self.policies: tuple[routing.Policy, ...] = ()
        """How models' requests are placed."""
        self.unsaved: set[str] = set()
        """Ids whose health in Postgres is not what is known here."""
        self.events: list[NodeRegistered | NodeLost] = []
        """Not yet published, oldest first."""
        self.spent: Counter[Cost] = Counter()
        """What probes have cost and Postgres does not know."""
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

    def merge(
        self,
        rows: Sequence[Node],
        breakers: Mapping[str, Breaker] = MappingProxyType({}),
        policies: tuple[routing.Policy, ...] = (),
    ) -> None:
        """Take over what admins have written. Health is kept, but for a drain, which is for good. Of nodes that are new
        here `breakers` tells how their breaker was left."""
        before = (self.nodes, self.policies) if self.loaded else None
        self.policies = policies
        self.loaded = True
        self.vitals = {row.id: _merged(self.vitals.get(row.id), row, breakers.get(row.id)) for row in rows}
        self.unsaved = {row.id for row in rows if row.id in self.unsaved or row.state != self.vitals[row.id].node.state}
        if (self.nodes, self.policies) != before:
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

    def judged(self, id: str, seen: Seen, now: float, time: datetime, random: float) -> Vital | None:
        """What a look would make of a node; None when it was removed meanwhile."""
        for spent in seen.spent:
            self._note(id, spent, time)
        vital = self.vitals.get(id)
        return vital and judge(vital, seen, now, time, random, self._policy)

    def saw(self, id: str, seen: Seen, now: float, time: datetime, random: float = 0.5) -> None:
        """A node that was removed meanwhile stays removed."""
        if after := self.judged(id, seen, now, time, random):
            self.put(after, time)

    def heard(self, outcome: Outcome, time: datetime, random: float) -> bool:
        """What a gateway tells of requests. Returns whether the node should be looked at now."""
        before = self.vitals.get(outcome.node_id)
        if before is None:
            return False
        if outcome.epoch != before.breaker.epoch:
            LATE.inc(outcome.good + outcome.bad)
            return False
        last = outcome.bad > 0 and self._last(before.node)
        after = heard(before, outcome.epoch, outcome.good, outcome.bad, time, random, self._policy, last=last)
        self.put(after, time)
        return outcome.bad > 0

    def adopt(self, id: str, breaker: Breaker, time: datetime) -> None:
        """The breaker as it is shared, where that is not what is known here."""
        vital = self.vitals.get(id)
        if vital is not None and vital.breaker != breaker:
            self.put(adopted(vital, breaker), time)

    def put(self, after: Vital, time: datetime) -> None:
        id = after.node.id
        before = self.vitals.get(id)
        if before is None:
            return
        self.vitals[id] = after
        if (after.node, after.reason) == (before.node, before.reason):
            return
        _count(before, after)
        self.unsaved.add(id)
        if event := _event(before, after, self._new_id(), time):
            self.events.append(event)
        self.health_changed.set()
        self.routes_changed.set()

    def _note(self, id: str, spent: Spent, time: datetime) -> None:
        hour = time.replace(minute=0, second=0, microsecond=0)
        counts = {
            "requests": 1,
            "unanswered": int(not spent.answered),
            "input_tokens": spent.input_tokens,
            "output_tokens": spent.output_tokens,
        }
        self.spent.update({(id, hour, spent.model, kind): count for kind, count in counts.items()})

    def _last(self, node: Node) -> bool:
        """Without it one of its models would have no node."""
        others = {
            model.id
            for vital in self.vitals.values()
            if vital.node.state == "ready" and vital.node.id != node.id
            for model in vital.node.models
        }
        return any(model.id not in others for model in node.models)


def _merged(known: Vital | None, row: Node, breaker: Breaker | None) -> Vital:
    if known is not None:
        state = "draining" if row.state == "draining" else known.node.state
        node = msgspec.structs.replace(row, state=state, models=known.node.models, epoch=known.breaker.epoch)
        return msgspec.structs.replace(known, node=node)
    if breaker is not None:
        return adopted(Vital(node=row), breaker)
    # out of the routes, and nobody remembers for how long: it may be probed at once
    return Vital(node=row, breaker=Breaker(state="open") if row.state == "unhealthy" else Breaker())


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
                deployment_id=node.deployment_id,
            )
        case "ready", "unhealthy":
            return NodeLost(id=id, time=time, node_id=node.id, reason=after.reason)
    return None


def _count(before: Vital, after: Vital) -> None:
    match before.node.state, after.node.state:
        case "ready", "unhealthy":
            EJECTED.labels("look" if after.failures else "requests").inc()
        case "unhealthy", "ready":
            READMITTED.inc()
