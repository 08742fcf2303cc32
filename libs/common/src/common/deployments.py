"""Deployments: the typed spec that an admin asks for, and the snapshot of them that the provisioner publishes.

The spec's types are all that the admin door checks; whether flags, image and accelerators fit together is the
provisioner's to say. Every text is matched from its first character to its last, so that none can carry a line break,
a quote, or a look-alike of a letter.
"""

from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

BUCKET = "DEPLOYMENTS"
KEY = "snapshot"

Name: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z", max_length=40)]
ModelId: TypeAlias = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?\Z", max_length=193)
]
Revision: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", max_length=100)]
Version: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\Z", max_length=11)]
Image: TypeAlias = Annotated[
    str, Meta(pattern=r"\A[a-z0-9][a-z0-9.:-]{0,99}(/[a-z0-9][a-z0-9._-]{0,99}){0,4}@sha256:[0-9a-f]{64}\Z")
]
"""By its digest: a tag may be another program tomorrow."""
Place: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\Z", max_length=63)]
"""A cloud or a region."""
Region: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9-]{0,62}\Z", max_length=63)]
Gpu: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9-]{0,30}\Z", max_length=31)]
Accelerator: TypeAlias = Annotated[dict[Gpu, Annotated[int, Meta(ge=1, le=16)]], Meta(min_length=1, max_length=1)]
"""`{"L4": 1}`: one kind, and how many of it in one machine."""
Argument: TypeAlias = Annotated[str, Meta(min_length=1, max_length=512)]
Replicas: TypeAlias = Annotated[int, Meta(ge=0, le=1000)]
Weight: TypeAlias = Annotated[float, Meta(gt=0, le=1000)]
Idle: TypeAlias = Annotated[float, Meta(ge=1, le=604_800)]
Concurrency: TypeAlias = Annotated[int, Meta(ge=1, le=10_000)]
SpotPolicy: TypeAlias = Literal["spot", "on_demand", "spot_then_on_demand"]
Launcher: TypeAlias = Literal["sky", "local"]
Status: TypeAlias = Literal["active", "deleting"]


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    model: ModelId
    """Of the model hub; what callers name, too."""
    revision: Revision | None = None
    image: Image | None = None
    vllm_version: Version | None = None
    accelerators: Annotated[tuple[Accelerator, ...], Meta(max_length=8)] = ()
    """In order of preference; may be empty on the launcher `local` only."""
    clouds: Annotated[tuple[Place, ...], Meta(max_length=20)] = ()
    """Empty: every cloud that is enabled."""
    regions: Annotated[tuple[Region, ...], Meta(max_length=50)] = ()
    spot: SpotPolicy = "spot_then_on_demand"
    on_demand_replicas: Replicas = 0
    """So many of the replicas are never spot."""
    min_replicas: Replicas = 0
    max_replicas: Annotated[int, Meta(ge=1, le=1000)] = 1
    idle_timeout_s: Idle = 300
    target_concurrency: Concurrency | None = None
    """Requests at once that one replica is meant for; None: whatever the scheduler takes for good."""
    weight: Weight = 1.0
    """Of its nodes; of several deployments of a model, the share of replicas too (a canary)."""
    max_hourly_usd: Decimal | None = None
    """Of all its machines together."""
    max_monthly_usd: Decimal | None = None
    """Of a calendar month, UTC; what runs is drained when it is spent."""
    vllm_args: Annotated[tuple[Argument, ...], Meta(max_length=64)] = ()
    """Each `--name=value`, or `--name` and `--no-name` for a switch."""
    launcher: Launcher = "sky"


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    replicas: Replicas


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """As the scheduler needs it, to ask for capacity."""

    id: UUID
    name: str
    model: str
    min_replicas: int
    max_replicas: int
    idle_timeout_s: float
    target_concurrency: int | None = None
    status: Status = "active"
    replicas: int = 0
    """Wanted now."""
    ready: int = 0
    """Of them, registered and ready."""
    reason: str = ""
    """Why there are fewer than wanted; empty when nothing is wrong."""


class Snapshot(msgspec.Struct, frozen=True):
    version: int
    deployments: tuple[Deployment, ...] = ()
