"""What an operator sees of those who wait: `cl_queue`'s answer, read. Pure."""

import msgspec

from common.leases import model_of, region_of


class Flow(msgspec.Struct, frozen=True):
    tenant_id: str
    priority: str
    waiting: int


class Line(msgspec.Struct, frozen=True):
    model: str
    region: str
    """That they must not leave; empty: they may."""
    waiting: int
    oldest_s: float
    """How long the first has waited."""
    slot_every_s: float | None
    """Between two slots lately; None when too few have come."""
    flows: tuple[Flow, ...]
    """In the order of their turns."""


class Lines(msgspec.Struct, frozen=True):
    lines: list[Line]


def read(answer: object) -> Lines:
    assert isinstance(answer, list)
    return Lines([_line(*one) for one in answer])


def _line(name: bytes, waiting: int, oldest_ms: int, slot_ms: int, flows: list[bytes | int]) -> Line:
    line = name.decode()
    return Line(
        model_of(line),
        region_of(line),
        waiting,
        oldest_ms / 1000,
        slot_ms / 1000 if slot_ms else None,
        tuple(_flow(flow, count) for flow, count in zip(flows[::2], flows[1::2], strict=True)),
    )


def _flow(name: bytes | int, waiting: bytes | int) -> Flow:
    assert isinstance(name, bytes)
    tenant, _, priority = name.decode().partition("/")
    return Flow(tenant, priority, int(waiting))
