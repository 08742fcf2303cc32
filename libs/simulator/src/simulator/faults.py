"""What goes wrong on demand, for one request (a header) or for the next ones (armed in the process)."""

from random import Random
from typing import Final

import msgspec

from simulator.errors import BadRequest

HEADER: Final = "x-sim-fault"
ENDINGS: Final = {"stall", "truncate", "reset", "error", "error400", "abort", "http503", "http500"}
SHAPES: Final = {"slow_prefill", "split", "coalesce", "multi_token"}


class Fault(msgspec.Struct, frozen=True):
    """An ending strikes once `after_tokens` tokens (all choices together) were sent."""

    fault: str
    after_tokens: int = 0
    times: int = 0  # how many requests it strikes; 0: all
    probability: float = 1.0
    seconds: float = 1.0  # slow_prefill
    size: int = 4  # coalesce: events in one write; multi_token: tokens in one chunk; split: bytes in one piece


class Plan(msgspec.Struct, frozen=True):
    """What happens to one request."""

    ending: str = ""
    after_tokens: int = 0
    delay_s: float = 0.0
    split: int = 0
    coalesce: int = 1
    stride: int = 1


def plan(faults: list[Fault]) -> Plan:
    """Faults together; of two endings the first counts."""
    ending = next((f for f in faults if f.fault in ENDINGS), None)
    by = {f.fault: f for f in reversed(faults)}
    return Plan(
        ending.fault if ending else "",
        ending.after_tokens if ending else 0,
        by["slow_prefill"].seconds if "slow_prefill" in by else 0.0,
        by["split"].size if "split" in by else 0,
        by["coalesce"].size if "coalesce" in by else 1,
        by["multi_token"].size if "multi_token" in by else 1,
    )


def checked(fault: Fault) -> Fault:
    """The fault, or BadRequest if there is none of that name."""
    if fault.fault not in ENDINGS | SHAPES:
        raise BadRequest(f"no such fault: {fault.fault}; known: {', '.join(sorted(ENDINGS | SHAPES))}")
    return fault


def parse(header: str) -> list[Fault]:
    """`truncate;after_tokens=3, split;size=5` to faults."""
    found = []
    for item in filter(None, (part.strip() for part in header.split(","))):
        name, *options = item.split(";")
        fields = dict(option.strip().split("=", 1) for option in options if "=" in option)
        found.append(checked(msgspec.convert({"fault": name.strip(), **fields}, Fault, strict=False)))
    return found


class Armed:
    """Faults that wait for requests."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  # repeatable, not secret
        self._faults: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        self._faults.append(checked(fault))

    def clear(self) -> None:
        self._faults.clear()

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._faults)

    def strike(self) -> list[Fault]:
        """Faults for the next request, each used up once."""
        struck = [f for f in self._faults if f.probability >= 1.0 or self._random.random() < f.probability]
        left = []
        for fault in self._faults:
            if fault in struck and fault.times:
                fault = msgspec.structs.replace(fault, times=fault.times - 1)
                if not fault.times:
                    continue
            left.append(fault)
        self._faults = left
        return struck
