from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.breaker import Breaker, Policy, Window, added, due, opened, permitted, probed, returned, trouble

POLICY = Policy(in_a_row=3, volume=10, window=10, shortest=1, growth=2, longest=8, jitter=0.2, permit=5, calm=60)
EVEN = 0.5
"""No jitter."""
OPEN = opened(Breaker(), 100.0, EVEN, POLICY, "it fell")


def half_open(now: float = 101.0) -> Breaker:
    breaker = permitted(OPEN, "a", now, POLICY)
    assert breaker is not None
    return breaker


@pytest.mark.parametrize(
    ("results", "now", "reason"),
    [
        ([], 0, ""),
        ([(0, 0, 2)], 0, ""),
        ([(0, 0, 3)], 0, "3 requests in a row failed"),
        ([(0, 0, 1), (1, 0, 1), (5, 0, 1)], 5, "3 requests in a row failed"),
        ([(0, 0, 2), (1, 1, 0), (2, 0, 2)], 2, ""),
        ([(0, 1, 2), (1, 0, 2)], 1, ""),
        ([(0, 4, 5)], 0, ""),
        ([(0, 5, 5)], 0, "5 of 10 requests failed within 10 s"),
        ([(0, 6, 5)], 0, ""),
        ([(0, 100, 0), (1, 1, 5)], 1, ""),
        ([(0, 1, 9), (11, 1, 0)], 11, ""),
        ([(0, 1, 9)], 10, ""),
        ([(9, 1, 5), (12, 2, 5)], 15, "10 of 13 requests failed within 10 s"),
    ],
)
def test_when_it_opens(results: list[tuple[float, int, int]], now: float, reason: str) -> None:
    window = Window()
    for at, good, bad in results:
        window = added(window, good, bad, at, POLICY)
    assert trouble(window, now, POLICY) == reason


def test_a_window_holds_no_more_than_its_seconds() -> None:
    window = Window()
    for tick in range(1000):
        window = added(window, 1, 1, tick / 10, POLICY)
    assert len(window.seconds) <= POLICY.window + 1


def test_each_opening_in_a_row_is_longer_up_to_the_longest() -> None:
    breaker, now, pauses = Breaker(), 1000.0, []
    for _ in range(6):
        breaker = opened(breaker, now, EVEN, POLICY, "it fell")
        pauses.append(breaker.until - now)
        now = breaker.until
        probe = permitted(breaker, "a", now, POLICY)
        assert probe is not None
        breaker = probed(probe, probe.epoch, now, EVEN, POLICY, well=True)
    assert pauses == [1, 2, 4, 8, 8, 8]
    calm = opened(breaker, now + POLICY.calm, EVEN, POLICY, "it fell")
    assert calm.until - now - POLICY.calm == 1


@pytest.mark.parametrize(("random", "pause"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_the_time_is_jittered(random: float, pause: float) -> None:
    assert opened(Breaker(), 0.0, random, POLICY, "it fell").until == pytest.approx(pause, abs=1e-5)


HALF = half_open()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: permitted(Breaker(), "a", 1e9, POLICY), None),
        (lambda: permitted(OPEN, "a", 100.99, POLICY), None),
        (lambda: (HALF.state, HALF.epoch, HALF.holder, HALF.until), ("half_open", 2, "a", 106.0)),
        (lambda: permitted(HALF, "b", 105.9, POLICY), None),
        (lambda: permitted(HALF, "b", 106.0, POLICY).holder, "b"),  # type: ignore[union-attr]
        (lambda: opened(OPEN, 500.0, EVEN, POLICY, "again"), OPEN),
        (lambda: probed(OPEN, OPEN.epoch, 500.0, EVEN, POLICY, well=True), OPEN),
        (lambda: probed(HALF, HALF.epoch - 1, 102.0, EVEN, POLICY, well=True), HALF),
        (lambda: probed(HALF, HALF.epoch, 102.0, EVEN, POLICY, well=True).state, "closed"),
        (lambda: probed(HALF, HALF.epoch, 102.0, EVEN, POLICY, well=False).until, 104.0),
        (lambda: probed(HALF, HALF.epoch, 102.0, EVEN, POLICY, well=False).reason, "it fell"),
        (lambda: returned(HALF, HALF.epoch - 1, 102.0), HALF),
        (lambda: due(returned(HALF, HALF.epoch, 102.0), 102.0), True),
        (lambda: returned(HALF, HALF.epoch, 102.0).openings, 1),
    ],
)
def test_transitions(change: Callable[[], object], expected: object) -> None:
    assert change() == expected


class Store:
    """What replicas share: a record that changes by compare-and-set of its epoch."""

    def __init__(self) -> None:
        self.breaker = Breaker()

    def set(self, before: Breaker, after: Breaker) -> bool:
        if self.breaker.epoch != before.epoch or after is before:
            return False
        self.breaker = after
        return True


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fail", "ask", "well", "badly", "cancel", "wait"]),
        st.sampled_from(["a", "b", "c"]),
        st.floats(0, 3),
        st.floats(0, 0.999),
    ),
    max_size=80,
)


@given(STEPS)
def test_one_permit_at_a_time_and_late_results_change_nothing(steps: list[tuple[str, str, float, float]]) -> None:
    """Replicas act on whatever they read last, results come at any time; the store keeps one permit out."""
    store, now = Store(), 0.0
    read = dict.fromkeys("abc", store.breaker)
    permits: dict[str, Breaker] = {}
    for what, who, later, random in steps:
        now += later
        before = store.breaker
        if what == "fail" and read[who].state == "closed":
            store.set(read[who], opened(read[who], now, random, POLICY, "it fell"))
        elif what == "ask":
            wish = permitted(read[who], who, now, POLICY)
            if wish is not None and store.set(read[who], wish):
                others = [p for p in permits.values() if p.epoch == before.epoch and before.state == "half_open"]
                assert all(now >= other.until for other in others), "two permits at once"
                permits[who] = wish
        elif who in permits and what in ("well", "badly", "cancel"):
            permit = permits.pop(who)
            after = (
                returned(before, permit.epoch, now)
                if what == "cancel"
                else probed(before, permit.epoch, now, random, POLICY, well=what == "well")
            )
            if permit.epoch != before.epoch:
                assert after is before
            store.set(before, after)
        read[who] = store.breaker
        assert store.breaker.epoch == before.epoch + (store.breaker is not before)
        assert store.breaker.until <= now + POLICY.longest * (1 + POLICY.jitter)
        if store.breaker is before:
            assert store.breaker == before
    # whatever happened, it can be closed again
    end = max(store.breaker.until, now)
    if store.breaker.state != "closed":
        last = permitted(store.breaker, "z", end, POLICY)
        assert last is not None
        assert probed(last, last.epoch, end, 0.5, POLICY, well=True).state == "closed"


def test_it_travels_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(HALF), type=Breaker) == HALF
