"""The nodes of one model, as of one snapshot."""

from collections.abc import Sequence
from functools import cached_property

from common.routing import Node, Policy
from gateway.placing.ring import Ring
from gateway.placing.wanted import Wanted


class Pool:
    def __init__(self, nodes: tuple[Node, ...], policy: Policy) -> None:
        self.nodes, self.policy = nodes, policy
        self.ready = tuple(node for node in nodes if node.state == "ready")
        self._ready_in: dict[str, list[Node]] = {}
        for node in self.ready:
            self._ready_in.setdefault(node.region, []).append(node)

    @cached_property
    def ring(self) -> Ring:
        """Of those that are not ready, too: while a node is away, others' keys stay where they are."""
        return Ring(node.id for node in self.nodes)

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    def home(self, wanted: Wanted) -> Sequence[Node]:
        """The ready nodes that come first: those of the request's region, if it has any."""
        if self.policy.region == "ignore" or not wanted.region:
            return self.ready
        return self._ready_in.get(wanted.region) or self.ready
