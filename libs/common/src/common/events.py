"""The messages between services. A Struct's tag is its subject and the name of its JSON Schema.

Append-only: fields may be added with a default; anything else is a `v2` beside the `v1`.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

Time: TypeAlias = Annotated[datetime, Meta(tz=True)]
Tokens: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
Outcome: TypeAlias = Literal["completed", "client_disconnected", "upstream_lost", "gateway_lost", "refused"]
UsageSource: TypeAlias = Literal["engine", "continuous", "estimated"]


class UsageRecorded(msgspec.Struct, frozen=True, tag_field="type", tag="usage.recorded.v1", kw_only=True):
    """One request's terminal record. `id` is the request id (UUIDv7), the `Nats-Msg-Id` and the ledger's key.

    A `gateway_lost` record is provisional: a later record of the same id with another outcome replaces it.
    """

    id: UUID
    time: Time
    tenant_id: UUID
    environment_id: UUID
    api_key_id: UUID
    model: Name
    region: str = ""
    node_id: str | None = None
    endpoint: str
    streamed: bool
    outcome: Outcome
    usage_source: UsageSource
    input_tokens: Tokens
    cached_tokens: Tokens = 0
    """The part of `input_tokens` that the engine had cached."""
    output_tokens: Tokens
    started_at: Time
    first_token_at: Time | None = None
    ended_at: Time
    attempts: Annotated[int, Meta(ge=0, le=1000)] = 1

    @property
    def subject(self) -> str:
        return f"usage.recorded.v1.{self.tenant_id}"


class NodeRegistered(msgspec.Struct, frozen=True, tag_field="type", tag="node.registered.v1", kw_only=True):
    id: UUID
    time: Time
    node_id: str
    endpoint: str
    region: str = ""
    models: tuple[str, ...] = ()
    deployment_id: UUID | None = None


class NodeDraining(msgspec.Struct, frozen=True, tag_field="type", tag="node.draining.v1", kw_only=True):
    """A node takes no new requests any more, for good. Whoever knows it first says it: the node, the provisioner (a
    spot notice), an admin. The scheduler acts on it, and never undoes it."""

    id: UUID
    time: Time
    node_id: str
    reason: str
    deadline: Time | None = None
    """When the machine goes, where that is known."""


class Counters(msgspec.Struct, frozen=True):
    """Of one model, since its engine began."""

    input_tokens: Annotated[int, Meta(ge=0)]
    output_tokens: Annotated[int, Meta(ge=0)]


class NodeCounted(msgspec.Struct, frozen=True, tag_field="type", tag="node.counted.v1", kw_only=True):
    """What an engine says that it has done, by model; told every minute, to be compared with what was charged."""

    id: UUID
    time: Time
    node_id: Name
    models: dict[str, Counters]


class NodeLost(msgspec.Struct, frozen=True, tag_field="type", tag="node.lost.v1", kw_only=True):
    """A node left the routes for what was seen of it. It may come back: it is probed again."""

    id: UUID
    time: Time
    node_id: str
    reason: str


class ScaleRequested(msgspec.Struct, frozen=True, tag_field="type", tag="scale.requested.v1", kw_only=True):
    """Absolute desired count, so that a repeated event changes nothing; of two epochs the higher one holds."""

    id: UUID
    time: Time
    model: Name
    replicas: Annotated[int, Meta(ge=0, le=10_000)]
    epoch: Annotated[int, Meta(ge=0)]
    """Grows with each request for a deployment, whichever replica of the scheduler makes it."""
    reason: str
    deployment_id: UUID | None = None


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What the events of a launch have in common."""

    id: UUID
    time: Time
    launch_id: UUID
    deployment_id: UUID
    model: Name
    cluster: str
    cloud: str
    region: str
    accelerator: str
    spot: bool


class LaunchStarted(Launch, frozen=True, tag_field="type", tag="launch.started.v1", kw_only=True):
    """A machine was asked for."""


class LaunchSucceeded(Launch, frozen=True, tag_field="type", tag="launch.succeeded.v1", kw_only=True):
    """Its engine makes tokens, and requests go to it."""

    node_id: str


class LaunchFailed(Launch, frozen=True, tag_field="type", tag="launch.failed.v1", kw_only=True):
    """It ended without ever being of use, or too soon after; the machine is gone."""

    failure: Literal["capacity", "broken"]
    reason: str


class KeyChanged(msgspec.Struct, frozen=True, tag_field="type", tag="key.changed.v1", kw_only=True):
    """A key, or every key of a tenant, must be read again. `hashes` are SHA-256 in hex."""

    id: UUID
    time: Time
    tenant_id: UUID
    hashes: tuple[str, ...] = ()


class TenantChanged(msgspec.Struct, frozen=True, tag_field="type", tag="tenant.changed.v1", kw_only=True):
    """A tenant is new, or its name, e-mail or plan is another: read it again. Told to whoever listens, not stored."""

    id: UUID
    time: Time
    tenant_id: UUID


class AuditRecorded(msgspec.Struct, frozen=True, tag_field="type", tag="audit.recorded.v1", kw_only=True):
    """One entry of the audit log, published at least once, in the order of `seq`.

    `hash` = SHA-256 of `prev_hash` (as bytes) and the other fields but `type` as JSON with sorted keys.
    """

    id: UUID
    time: Time
    seq: Annotated[int, Meta(ge=1)]
    actor: str
    action: str
    target: str
    tenant_id: UUID | None = None
    status: int | None = None
    """HTTP's; None while a call is being forwarded to the service that owns it."""
    count: Annotated[int, Meta(ge=1)] = 1
    address: str
    request_id: str
    before_sha256: str | None = None
    after_sha256: str | None = None
    prev_hash: str
    hash: str


class BudgetChanged(msgspec.Struct, frozen=True, tag_field="type", tag="budget.changed.v1", kw_only=True):
    """A tenant's budget, its credit, or what it has spent. The account itself is in the bucket `BUDGETS`."""

    id: UUID
    time: Time
    tenant_id: UUID
    version: Annotated[int, Meta(ge=0)]


Event: TypeAlias = (
    UsageRecorded
    | NodeRegistered
    | NodeDraining
    | NodeCounted
    | NodeLost
    | ScaleRequested
    | LaunchStarted
    | LaunchSucceeded
    | LaunchFailed
    | KeyChanged
    | TenantChanged
    | AuditRecorded
    | BudgetChanged
)
ALL: tuple[type[msgspec.Struct], ...] = (
    UsageRecorded,
    NodeRegistered,
    NodeDraining,
    NodeCounted,
    NodeLost,
    ScaleRequested,
    LaunchStarted,
    LaunchSucceeded,
    LaunchFailed,
    KeyChanged,
    TenantChanged,
    AuditRecorded,
    BudgetChanged,
)


def subject_of(event: msgspec.Struct) -> str:
    if isinstance(event, UsageRecorded):
        return event.subject
    return str(type(event).__struct_config__.tag)
