"""Which machine to try next: preferred accelerators first, cheap before dear, and none that was just refused. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from common.deployments import Spec
from provisioner.launcher import Candidate, Failure

SCARCE_FIRST, SCARCE_LAST = 60.0, 1800.0
"""Seconds that a machine that was not to be had is left alone: the first time, and at most."""
REGION_FAILURES, REGION_FIRST, REGION_LAST = 3, 120.0, 1800.0
"""So many failures in a row of a region, of whatever kind, and it is left alone."""
BROKEN_FIRST, BROKEN_LAST = 1.0, 600.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a launch ended: it became ready, or failed."""

    deployment_id: UUID
    generation: int
    cloud: str
    region: str
    accelerator: str
    count: int
    spot: bool
    failure: Failure | None
    at: datetime


def ordered(spec: Spec, candidates: Iterable[Candidate]) -> list[Candidate]:
    """As the spec prefers them: by its order of accelerators, then spot, then price."""
    allowed = [c for c in candidates if _allowed(spec, c)]
    return sorted(allowed, key=lambda c: (c.choice, not c.spot, c.hourly_microusd, c.cloud, c.region))


def _allowed(spec: Spec, candidate: Candidate) -> bool:
    if spec.launcher == "local":
        return True
    return (
        (not spec.clouds or candidate.cloud in spec.clouds)
        and (not spec.regions or candidate.region in spec.regions)
        and (spec.spot != "spot" or candidate.spot)
        and (spec.spot != "on_demand" or not candidate.spot)
    )


def paused_until(deployment_id: UUID, generation: int, ended: Sequence[Ended]) -> datetime | None:
    """A deployment whose machines do not come to work is tried ever more rarely."""
    own = [e for e in ended if (e.deployment_id, e.generation) == (deployment_id, generation)]
    return _blocked(own, 1, BROKEN_FIRST, BROKEN_LAST, "broken")


def failures_in_row(deployment_id: UUID, generation: int, ended: Sequence[Ended]) -> int:
    own = [e for e in ended if (e.deployment_id, e.generation) == (deployment_id, generation)]
    return len(_last_failures(own, "broken"))


def blocked_until(candidate: Candidate, ended: Sequence[Ended]) -> datetime | None:
    """Until when nothing should be tried there; None or a time that is over: it may be."""
    here = [e for e in ended if (e.cloud, e.region) == (candidate.cloud, candidate.region)]
    same = [
        e for e in here if (e.accelerator, e.count, e.spot) == (candidate.accelerator, candidate.count, candidate.spot)
    ]
    times = [
        _blocked(same, 1, SCARCE_FIRST, SCARCE_LAST, "capacity"),
        _blocked(here, REGION_FAILURES, REGION_FIRST, REGION_LAST, None),
    ]
    return max((time for time in times if time), default=None)


def _blocked(ended: Sequence[Ended], least: int, first: float, last: float, kind: Failure | None) -> datetime | None:
    failures = _last_failures(ended, kind)
    if len(failures) < least:
        return None
    seconds = min(first * 2.0 ** min(len(failures) - least, 30), last)
    return failures[0].at + timedelta(seconds=seconds)


def _last_failures(ended: Sequence[Ended], kind: Failure | None) -> list[Ended]:
    """Since the last success, the newest first."""
    found: list[Ended] = []
    for one in sorted(ended, key=lambda e: e.at, reverse=True):
        if one.failure is None:
            break
        if kind in (None, one.failure):
            found.append(one)
    return found
