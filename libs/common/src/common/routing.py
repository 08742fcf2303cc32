"""The routing snapshot: which nodes serve which models. Written by the scheduler, read by every gateway.

It lives in the JetStream key-value bucket `ROUTES` under the key `snapshot`, so that a gateway has the last one
even while the scheduler is down.
"""

from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

BUCKET = "ROUTES"
KEY = "snapshot"

LOADS = "node.loads"
"""Where the leading scheduler tells, about once a second and to whoever listens, how busy the engines are."""

State: TypeAlias = Literal["warming", "ready", "unhealthy", "draining"]
Strategy: TypeAlias = Literal["least_loaded", "prefix_affinity", "round_robin", "weighted", "random"]


class Model(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int = 0
    """Tokens of prompt and reply together; 0 when the engine does not say."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    endpoint: str
    """`http://host:port`, without a path."""
    region: str = ""
    state: State = "warming"
    models: tuple[Model, ...] = ()
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    max_concurrency: Annotated[int, Meta(ge=0)] = 0
    """Requests at once; 0 is no limit."""
    api_key: str | None = None
    """What this node's engine asks for; never a tenant's key."""
    epoch: Annotated[int, Meta(ge=0)] = 0
    """Grows when its breaker moves. What is reported of a request carries the epoch in which it was sent, so that late
    news of an older state change nothing."""
    deployment_id: UUID | None = None
    risk: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """That it is taken away soon, as a spot machine may be."""
    revision: str = ""
    """Of its model's weights; a stream is continued only where it is the same. Empty: nobody told."""
    continuation: bool = True
    """Streams from it are kept so that they can go on elsewhere."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests of a model are placed."""

    model: str = ""
    strategy: Strategy = "least_loaded"
    region: Literal["prefer", "require", "ignore"] = "prefer"
    """Nodes of another region than the environment's: when its own are full or away, never, or as good as any."""
    slow_start_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """In which a node that comes up grows to its whole weight; 0 is at once."""


class Load(msgspec.Struct, frozen=True, array_like=True):
    """As an engine's `/metrics` says."""

    running: int = 0
    waiting: int = 0
    cache: float = 0.0
    """Share of the KV cache in use, up to 1."""


class Loads(msgspec.Struct, frozen=True):
    nodes: dict[str, Load]


class Snapshot(msgspec.Struct, frozen=True):
    version: int
    nodes: tuple[Node, ...] = ()
    deployed: tuple[str, ...] = ()
    """Models that are deployed, in order, those with no node at the moment too."""
    policies: tuple[Policy, ...] = ()
    """Of the models that have one of their own."""


OUTCOMES = "node.outcomes"
"""The subject on which gateways tell what became of the requests that they sent to nodes: a list of `Outcome`, each
second, and at once of a failure. Told, not stored."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    node_id: str
    epoch: int
    """As the node had it when the requests were sent."""
    good: int
    bad: int
    """The node's fault: no connection, silence, a 5xx, an end in the middle. Refused for what they are, or given up by
    their client, requests count as neither."""
