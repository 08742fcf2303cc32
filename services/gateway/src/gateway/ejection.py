"""Nodes that this gateway leaves out for what it has seen of them itself: at once, and while no scheduler is there.

Each node has a breaker here, too. Once its time is over, one request tries the node; the scheduler's own breaker is the
fleet's, and when that has moved (the node's epoch), what was thought here is forgotten. Not thread-safe, never awaits.
"""

from collections.abc import Callable, Mapping

import msgspec
from prometheus_client import Counter

from common import breaker
from common.breaker import Breaker, Policy, Window
from common.routing import Node

EJECTED = Counter("gateway_nodes_ejected", "Nodes left out for what this gateway has seen of them")

NONE: frozenset[str] = frozenset()


class _Seen(msgspec.Struct):
    epoch: int
    breaker: Breaker = Breaker()
    window: Window = Window()


class Ejection:
    def __init__(self, policy: Policy, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """`clock`: seconds. `random`: in [0, 1)."""
        self._policy, self._clock, self._random = policy, clock, random
        self._seen: dict[str, _Seen] = {}
        """Nodes that have failed lately; in the common case none."""

    def out(self, nodes: Mapping[str, Node], request: str) -> frozenset[str]:
        """Those of `nodes`, by id, that this request had better not be sent to.

        A node that may be tried is open to one request only: call `placed` when it is known where that went.
        """
        if not self._seen:
            return NONE
        now = self._clock()
        suspects = [nodes[id] for id in tuple(self._seen) if id in nodes]
        return frozenset(node.id for node in suspects if not self._lets(node, request, now))

    def trusted(self, nodes: list[Node]) -> list[Node]:
        """Those that may be given to whoever waits, since nobody is picked to try one; all when none is left."""
        if not self._seen:
            return nodes
        now = self._clock()
        return [node for node in nodes if self._trusts(node, now)] or nodes

    def placed(self, request: str, node: Node | None) -> None:
        """It went to `node`, or to none: what it was to try otherwise, others may."""
        for id, seen in self._seen.items():
            if seen.breaker.holder == request and (node is None or node.id != id):
                seen.breaker = breaker.returned(seen.breaker, seen.breaker.epoch, self._clock())

    def saw(self, node: Node, request: str, well: bool | None) -> None:
        """How a request to `node` ended; None: in a way that says nothing of the node."""
        seen = self._of(node)
        now = self._clock()
        if seen is None:
            if well is not False:
                return
            seen = self._seen[node.id] = _Seen(node.epoch)
        if seen.epoch != node.epoch:
            return  # sent before the fleet's breaker moved
        if seen.breaker.holder == request:
            if well is None:
                seen.breaker = breaker.returned(seen.breaker, seen.breaker.epoch, now)
            else:
                seen.breaker = breaker.probed(
                    seen.breaker, seen.breaker.epoch, now, self._random(), self._policy, well=well
                )
                seen.window = Window()
        elif well is not None and seen.breaker.state == "closed":
            seen.window = breaker.added(seen.window, int(well), int(not well), now, self._policy)
            if reason := breaker.trouble(seen.window, now, self._policy):
                seen.breaker = breaker.opened(seen.breaker, now, self._random(), self._policy, reason)
                EJECTED.inc()
        self._forget(node.id, seen, now)

    def _of(self, node: Node) -> _Seen | None:
        """What is known of it; nothing once the fleet's breaker has moved."""
        seen = self._seen.get(node.id)
        if seen is not None and node.epoch > seen.epoch:
            del self._seen[node.id]
            return None
        return seen

    def _lets(self, node: Node, request: str, now: float) -> bool:
        seen = self._of(node)
        if seen is None or seen.breaker.state == "closed" or seen.breaker.holder == request:
            return True
        permit = breaker.permitted(seen.breaker, request, now, self._policy)
        if permit is not None:
            seen.breaker = permit
        return permit is not None

    def _trusts(self, node: Node, now: float) -> bool:
        seen = self._of(node)
        return seen is None or seen.breaker.state == "closed" or seen.breaker.until <= now

    def _forget(self, id: str, seen: _Seen, now: float) -> None:
        calm = now - seen.breaker.until >= self._policy.calm or not seen.breaker.openings
        if seen.breaker.state == "closed" and calm and not seen.window.in_a_row and len(seen.window.seconds) <= 1:
            del self._seen[id]
