"""The pick on values, just as Redis does it: for when Redis is away, and to explain."""

from collections.abc import Mapping

import msgspec

SCALE = 2048
"""Tokens that weigh as much as a request does by being one."""
SLACK = 2
"""Requests by which a preferred node may be over the bound: when little is going on, one request is many averages."""


class Place(msgspec.Struct, frozen=True):
    """What a node is offered with."""

    id: str
    capacity: int
    """Requests at once; 0 is no limit."""
    weight: float
    bias: float = 0.0


class Offer(msgspec.Struct, frozen=True):
    places: tuple[Place, ...]
    preferred: int = 0
    """The first of them are tried first, in their order."""
    bound: float = 0.0
    """Times the average load that a preferred one may have; 0 is any."""
    tokens: int = 0
    scale: int = SCALE

    def how(self, random: float) -> str:
        """As `cl_take` wants it."""
        numbers = [random, self.tokens, self.scale, self.preferred, self.bound]
        if any(place.bias for place in self.places):
            numbers += [place.bias for place in self.places]
        return " ".join(map(repr, numbers))


def loads(offer: Offer, live: Mapping[str, int], pending: Mapping[str, int]) -> list[float]:
    """Of each place, with this request on it."""
    found = []
    for place in offer.places:
        work = pending.get(place.id, 0) + offer.tokens if offer.scale else 0
        extra = work / offer.scale if offer.scale else 0
        found.append((live.get(place.id, 0) + 1 + extra + place.bias) / place.weight)
    return found


def pick(offer: Offer, live: Mapping[str, int], pending: Mapping[str, int], random: float) -> str | None:
    """None: all are full. `random` < 1 chooses among equals."""
    of = loads(offer, live, pending)
    total = 0.0
    for load in of:  # not sum(), which rounds better than Lua does
        total += load
    most = offer.bound * total / len(of) + SLACK if offer.bound and of else float("inf")
    best: float | None = None
    equals: list[str] = []
    for number, (place, load) in enumerate(zip(offer.places, of, strict=True)):
        if place.capacity and live.get(place.id, 0) >= place.capacity:
            continue
        if number < offer.preferred and load <= most:
            return place.id
        if best is None or load < best:
            best, equals = load, [place.id]
        elif load == best:
            equals.append(place.id)
    return equals[int(random * len(equals))] if equals else None
