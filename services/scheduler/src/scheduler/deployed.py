"""The deployments, followed from NATS as the provisioner publishes them; the last ones hold while it is away."""

import asyncio
import logging
from collections import defaultdict

import msgspec

from common.bus import Bus
from common.deployments import BUCKET, KEY, Deployment, Snapshot
from common.errors import Unavailable

log = logging.getLogger(__name__)

REST = 1.0  # seconds until it is followed again


class Deployed:
    def __init__(self, bus: Bus, changed: asyncio.Event) -> None:
        """`changed` is set with each change."""
        self._bus, self._changed = bus, changed
        self._by_model: dict[str, tuple[Deployment, ...]] = {}

    @property
    def by_model(self) -> dict[str, tuple[Deployment, ...]]:
        """Those that are to be served, in order of model."""
        return self._by_model

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._by_model)

    def replace(self, snapshot: Snapshot) -> None:
        by_model: defaultdict[str, list[Deployment]] = defaultdict(list)
        for deployment in snapshot.deployments:
            if deployment.status == "active":
                by_model[deployment.model].append(deployment)
        self._by_model = {model: tuple(by_model[model]) for model in sorted(by_model)}
        self._changed.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until cancelled."""
        while not stopping.is_set():
            try:
                async for value in self._bus.follow(BUCKET, KEY):
                    self.replace(msgspec.json.decode(value, type=Snapshot))
            except (Unavailable, msgspec.MsgspecError) as error:
                log.warning("deployments are not followed: %s", error)
            await asyncio.sleep(REST)
