"""One request that waits for a slot: whose it is, since when, for how long, and its turn."""

import asyncio
from collections.abc import Callable
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from common.errors import ApiError
from common.routing import Node
from gateway.leases import Ask

Priority: TypeAlias = Literal["high", "normal", "low"]
SHARES: dict[Priority, float] = {"high": 64, "normal": 8, "low": 1}
"""A class is a weight: the higher ones come sooner, and starve nobody."""


class Rules(msgspec.Struct, frozen=True):
    """How long and how many may wait; 0 seconds: nobody."""

    seconds: float
    cold_seconds: float
    """For a model that is deployed and has no node."""
    length: int
    """Requests that may wait for one model."""
    length_of_tenant: int
    renew_seconds: float
    """In which every gateway has told Redis of its running requests."""


class Waiter:
    """Mutable on purpose, as a live request is."""

    __slots__ = (
        "again_at", "arrived", "ask", "deadline", "entered", "expected", "flow", "id", "intent", "model",
        "region", "tell", "turn", "weight",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: str,
        model: str,
        region: str,
        flow: str,
        weight: float,
        intent: bytes,
        ask: Ask,
        patience: float,
        tell: Callable[[list[tuple[bytes, bytes]]], None],
    ) -> None:
        """`region`: that it must not leave; `patience` in seconds; `tell` is given headers for the reply."""
        loop = asyncio.get_running_loop()
        self.id = id
        self.model = model
        self.region = region
        self.flow = flow
        self.weight = weight
        self.intent = intent
        self.ask = ask
        self.tell = tell
        self.arrived = loop.time()
        self.deadline = self.arrived + patience
        self.turn: asyncio.Future[Node] = loop.create_future()
        self.entered = False
        """Redis has told that it waits there."""
        self.again_at: float | None = None
        """When to enter again."""
        self.expected = 0.0
        """Seconds until its turn, as of when it entered; 0 is unknown."""

    def refuse(self, error: ApiError) -> None:
        if not self.turn.done():
            self.turn.set_exception(error)
            self.turn.exception()  # whoever waits may have gone


def flow_of(tenant: UUID, priority: Priority) -> str:
    return f"{tenant}/{priority}"
