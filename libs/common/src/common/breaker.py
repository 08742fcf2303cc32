"""A node's circuit breaker as a state machine. Pure: the time, randomness and who probes are arguments.

    closed ──failures in a row, or too many of a window──▶ open ──its time is over: one permit──▶ half_open
    half_open ──the probe went well──▶ closed
              ──it failed──▶ open, for longer than before
              ──the permit lapsed, or its holder gave it back──▶ one more permit

Every change begins a new epoch. A result belongs to the epoch in which its request was sent: what comes later than the
next change, changes nothing. Asking does not move anything either, so that traffic cannot keep a breaker open.
"""

from typing import Literal, TypeAlias

import msgspec

State: TypeAlias = Literal["closed", "open", "half_open"]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds."""

    in_a_row: int = 5
    """So many failures without a success between them open it."""
    window: float = 30.0
    volume: int = 20
    """Results that a window must hold before its share of failures says anything."""
    share: float = 0.5
    shortest: float = 1.0
    """How long it is open the first time."""
    growth: float = 2.0
    """Each further time in a row is so many times longer."""
    longest: float = 60.0
    jitter: float = 0.2
    """Give or take this share, so that nodes that fell together are not probed together."""
    permit: float = 60.0
    """How long a probe may take before another one may begin."""
    calm: float = 60.0
    """Closed for this long, it has forgotten how often it was open."""


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    state: State = "closed"
    epoch: int = 0
    until: float = 0.0
    """Open: when it may be probed. Half open: when the permit lapses. Closed: when it was closed."""
    openings: int = 0
    """How often in a row it has been opened."""
    holder: str = ""
    """Who may probe."""
    reason: str = ""
    """Why it is not closed."""


class Window(msgspec.Struct, frozen=True):
    """The results of one epoch, as far as they matter still."""

    seconds: tuple[tuple[int, int, int], ...] = ()
    """(Second, good, bad), oldest first."""
    in_a_row: int = 0


def added(window: Window, good: int, bad: int, now: float, policy: Policy) -> Window:
    """Results that came in together: their order is not known, so that one success among them ends a row."""
    second = int(now)
    kept = [one for one in window.seconds if one[0] > now - policy.window and one[0] != second]
    here = next((one for one in window.seconds if one[0] == second), (second, 0, 0))
    kept.append((second, here[1] + good, here[2] + bad))
    return Window(tuple(sorted(kept)), 0 if good else window.in_a_row + bad)


def trouble(window: Window, now: float, policy: Policy) -> str:
    """Why it should open; empty when it should not."""
    if window.in_a_row >= policy.in_a_row:
        return f"{window.in_a_row} requests in a row failed"
    recent = [one for one in window.seconds if one[0] > now - policy.window]
    good, bad = sum(one[1] for one in recent), sum(one[2] for one in recent)
    if good + bad >= policy.volume and bad >= policy.share * (good + bad):
        return f"{bad} of {good + bad} requests failed within {policy.window:g} s"
    return ""


def opened(breaker: Breaker, now: float, random: float, policy: Policy, reason: str) -> Breaker:
    """`random` in [0, 1). One that is open stays as it is."""
    if breaker.state == "open":
        return breaker
    forgotten = breaker.state == "closed" and now - breaker.until >= policy.calm
    openings = 1 if forgotten else breaker.openings + 1
    grown = policy.shortest * policy.growth ** min(openings - 1, 64)
    pause = min(grown, policy.longest) * (1 + policy.jitter * (2 * random - 1))
    return Breaker(state="open", epoch=breaker.epoch + 1, until=now + pause, openings=openings, reason=reason)


def due(breaker: Breaker, now: float) -> bool:
    """A probe may begin."""
    return breaker.state != "closed" and now >= breaker.until


def permitted(breaker: Breaker, holder: str, now: float, policy: Policy) -> Breaker | None:
    """With the one permit given to `holder`; None when it may not be probed now."""
    if not due(breaker, now):
        return None
    return msgspec.structs.replace(
        breaker, state="half_open", epoch=breaker.epoch + 1, until=now + policy.permit, holder=holder
    )


def returned(breaker: Breaker, epoch: int, now: float) -> Breaker:
    """The probe of this epoch was cancelled and says nothing: another may begin at once."""
    if breaker.state != "half_open" or breaker.epoch != epoch:
        return breaker
    return msgspec.structs.replace(breaker, state="open", epoch=epoch + 1, until=now, holder="")


def probed(
    breaker: Breaker, epoch: int, now: float, random: float, policy: Policy, *, well: bool, reason: str = ""
) -> Breaker:
    """The probe of this epoch has ended."""
    if breaker.state != "half_open" or breaker.epoch != epoch:
        return breaker
    if well:
        return Breaker(epoch=epoch + 1, until=now, openings=breaker.openings)
    return opened(breaker, now, random, policy, reason or breaker.reason)
