"""What whoever starts machines has to be able to do: the SkyPilot API server, and this machine itself."""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import msgspec

from common.deployments import Spec
from provisioner.fitting import Plan

Failure: TypeAlias = Literal["capacity", "broken"]
"""There is none to be had there now; or something is wrong, which another place may not cure."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One machine that could be had."""

    cloud: str
    region: str
    accelerator: str = ""
    """Empty: none."""
    count: int = 0
    choice: int = 0
    """The index in the spec's accelerators."""
    spot: bool = False
    hourly_microusd: int = 0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    cluster: str
    plan: Plan
    candidate: Candidate
    key: str
    """What the engine is to ask for; a secret."""


class Pending(msgspec.Struct, frozen=True):
    pass


class Up(msgspec.Struct, frozen=True):
    """The machine runs; whether the engine answers is not said."""

    endpoint: str


class Failed(msgspec.Struct, frozen=True):
    reason: str
    failure: Failure


Outcome: TypeAlias = Pending | Up | Failed


class LogPart(msgspec.Struct, frozen=True):
    text: str
    next: int
    """Where to read on."""
    done: bool = False
    """Nothing more will come."""


class Launcher(Protocol):
    """Every method raises Unavailable when nothing can be found out or done now: an empty answer means that there is
    nothing, never that nobody answered."""

    async def candidates(self, spec: Spec) -> list[Candidate]:
        """In no order."""

    async def find(self, cluster: str) -> str | None:
        """The request of an earlier `launch`, if there was one."""

    async def launch(self, order: Order) -> str:
        """Returns at once, with what to ask `poll` for."""

    async def poll(self, cluster: str, request_id: str) -> Outcome: ...

    async def observe(self) -> Mapping[str, bool]:
        """Every cluster that there is → whether its machine runs; from the source itself, not from memory."""

    async def down(self, cluster: str, request_id: str | None = None) -> None:
        """Whatever state it and its request are in; returns once it is gone. For one that there is not, too."""

    async def log(self, cluster: str, offset: int) -> LogPart: ...
