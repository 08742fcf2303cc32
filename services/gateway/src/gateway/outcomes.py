"""What became of requests, by node: told to the scheduler in batches, and to this gateway's own breakers at once."""

import asyncio

import msgspec

from common.bus import Bus
from common.errors import Unavailable
from common.routing import OUTCOMES, Node, Outcome
from gateway.ejection import Ejection

EVERY = 1.0  # seconds
SOONEST = 0.02
"""Seconds between two messages while requests fail."""


class Outcomes:
    """NATS away: what is not told is forgotten; the scheduler has eyes of its own."""

    def __init__(self, bus: Bus, ejection: Ejection) -> None:
        self._bus = bus
        self._ejection = ejection
        self._counts: dict[tuple[str, int], list[int]] = {}
        self._failed = asyncio.Event()
        self._muted = False

    def mute(self) -> None:
        """From now on it is this process that cuts requests, not their nodes."""
        self._muted = True

    def placed(self, request: str, node: Node | None) -> None:
        """Where the request goes, if anywhere."""
        self._ejection.placed(request, node)

    def saw(self, node: Node, request: str, well: bool | None) -> None:
        """`well` is None for what says nothing of the node: the client's fault, the client's leaving, a full queue."""
        if self._muted:
            return
        self._ejection.saw(node, request, well)
        if well is None:
            return
        counts = self._counts.setdefault((node.id, node.epoch), [0, 0])
        counts[0 if well else 1] += 1
        if not well:
            self._failed.set()

    async def tell(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EVERY):
                    await self._failed.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(SOONEST)
            self._failed.clear()
            counts, self._counts = self._counts, {}
            if not counts:
                continue
            told = [Outcome(node, epoch, good, bad) for (node, epoch), (good, bad) in counts.items()]
            try:
                await self._bus.tell(OUTCOMES, msgspec.json.encode(told))
            except Unavailable:
                continue
