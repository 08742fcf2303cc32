"""What could be had for a spec: candidates from the launchers, in order, and what a million tokens would cost."""

import asyncio
import time
from collections.abc import Mapping

import msgspec

from common.deployments import Spec
from common.errors import InvalidRequest
from provisioner import hardware
from provisioner.choosing import ordered
from provisioner.launcher import Candidate, Launcher
from provisioner.money import per_million, usd

FRESH = 60.0
"""Seconds that a launcher's list of machines is kept."""
REQUESTS = 32
"""At once, on one machine, where the spec does not say."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    cloud: str
    region: str
    accelerator: str
    count: int
    spot: bool
    hourly_usd: str
    usd_per_million_tokens: str | None
    """Estimated, of a busy machine; None for a model whose shape is not known."""


class Offers:
    def __init__(self, launchers: Mapping[str, Launcher]) -> None:
        self._launchers = launchers
        self._kept: dict[bytes, tuple[float, list[Candidate]]] = {}
        self._asking = asyncio.Lock()

    async def of(self, spec: Spec) -> list[Candidate]:
        """The preferred first. Raises Unavailable; InvalidRequest when there is no such launcher here."""
        launcher = self._launchers.get(spec.launcher)
        if launcher is None:
            raise InvalidRequest(f"the launcher {spec.launcher} is not set up here", param="launcher")
        wanted = (spec.launcher, spec.accelerators, spec.clouds, spec.regions, spec.spot)
        key = msgspec.json.encode(wanted)
        async with self._asking:
            at, candidates = self._kept.get(key, (0.0, []))
            if not at or time.monotonic() > at + FRESH:
                candidates = await launcher.candidates(spec)
                self._kept[key] = (time.monotonic(), candidates)
                self._kept = dict(list(self._kept.items())[-1000:])
        return ordered(spec, candidates)


def offer(spec: Spec, candidate: Candidate) -> Offer:
    return Offer(
        cloud=candidate.cloud,
        region=candidate.region,
        accelerator=candidate.accelerator,
        count=candidate.count,
        spot=candidate.spot,
        hourly_usd=usd(candidate.hourly_microusd),
        usd_per_million_tokens=_per_million(spec, candidate),
    )


def _per_million(spec: Spec, candidate: Candidate) -> str | None:
    model, gpu = hardware.model(spec.model), hardware.GPUS.get(candidate.accelerator)
    if model is None or gpu is None:
        return None
    rate = hardware.tokens_per_second(model, gpu, candidate.count, spec.target_concurrency or REQUESTS)
    return per_million(candidate.hourly_microusd, rate)
