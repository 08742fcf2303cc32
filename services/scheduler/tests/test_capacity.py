from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.deployments import Deployment
from common.ids import new_id
from scheduler.capacity import Memory, Policy, Scope, Signals, desired, fresh, scope

POLICY = Policy(
    high=0.75, low=0.5, concurrency=8, up_pause=15, down_pause=120, window=120, ahead=60, smooth=60, patience=5
)
SCOPE = Scope(least=0, most=10, idle=300, replicas=0, ready=0, concurrency=8)
T = 10_000.0


def memory(replicas: int, **known: Any) -> Memory:
    """A calm one that goes back far."""
    long_ago = {"moved_at": T - 1000, "since": T - 1000, "busy_at": T - 1, "at": T - 1}
    return Memory(**{**long_ago, "replicas": replicas, "seen": replicas, "peaks": ((T - 1, 1),), **known})


def of(replicas: int, **changed: Any) -> Scope:
    return msgspec.structs.replace(SCOPE, replicas=replicas, **{"ready": replicas, **changed})


@pytest.mark.parametrize(
    ("scope", "signals", "memory", "replicas", "reason"),
    [
        # from zero
        (of(0), Signals(), memory(0), 0, ""),
        (of(0), Signals(waiting=1), memory(0), 1, "1 wait, 0 run, and there is no replica"),
        (of(0), Signals(waiting=30), memory(0), 5, "30 wait, 0 run, and there is no replica"),
        (of(0), Signals(waiting=1), memory(0, moved_at=T - 1), 1, "1 wait, 0 run, and there is no replica"),
        (of(0), Signals(live=3, others=1), memory(0), 0, ""),
        (of(0), Signals(live=9, others=1), memory(0), 1, "0 wait, 9 run, and there is no replica"),
        (of(0), Signals(waiting=999), memory(0), 10, "999 wait, 0 run, and there is no replica, but at most 10"),
        # up
        (of(1), Signals(live=6), memory(1, level=6), 1, ""),
        (of(1), Signals(live=7), memory(1, level=7), 2, "7 run and 0 wait, +0.0 a second: 8 a replica"),
        (of(1), Signals(live=7), memory(1, moved_at=T - 14), 1, ""),
        (of(1), Signals(live=8, waiting=20), memory(1, level=28), 5, "8 run and 20 wait, +0.0 a second: 8 a replica"),
        (of(1), Signals(live=11, others=1), memory(1, level=11), 1, ""),
        # the trend, no further than twice
        (of(1), Signals(live=5), memory(1, level=5, slope=0.1), 2, "5 run and 0 wait, +0.1 a second: 8 a replica"),
        (of(1), Signals(live=6), memory(1, level=6, slope=99), 2, "6 run and 0 wait, +97.4 a second: 8 a replica"),
        (of(1), Signals(live=5), memory(1, level=5, slope=-9), 1, ""),
        # they wait though the numbers say it is enough
        (of(2), Signals(live=5, waiting=1, waited=6.0), memory(2), 3, "1 wait, the first for 6 s"),
        (of(2), Signals(live=5, waiting=1, waited=4.9), memory(2), 2, ""),
        (of(2, ready=1), Signals(live=5, waiting=1, waited=6.0), memory(2), 2, ""),
        # down
        (of(3), Signals(live=8), memory(3, peaks=((T - 50, 8),)), 2,
         "no more than 8 ran or waited within 120 s: 8 a replica"),
        (of(3), Signals(live=1), memory(3, peaks=((T - 50, 9),)), 3, ""),
        (of(3), Signals(live=1), memory(3, moved_at=T - 119), 3, ""),
        (of(3), Signals(live=1), memory(3, since=T - 119), 3, ""),
        (of(3, least=3), Signals(live=1), memory(3), 3, ""),
        (of(1), Signals(live=1), memory(1), 1, ""),
        # to zero
        (of(1), Signals(), memory(1, busy_at=T - 299), 1, ""),
        (of(1), Signals(), memory(1, busy_at=T - 300), 0, "nothing was asked for 300 s"),
        (of(1), Signals(waiting=1), memory(1, busy_at=T - 999), 1, ""),
        (of(1, least=1), Signals(), memory(1, busy_at=T - 999), 1, ""),
        (of(4, least=1), Signals(), memory(4, busy_at=T - 300), 1, "nothing was asked for 300 s"),
        (of(4), Signals(), memory(4, busy_at=T - 300), 0, "nothing was asked for 300 s"),
        # bounds that an admin has changed, and a count set by hand
        (of(0, least=2), Signals(), memory(0), 2, "at least 2"),
        (of(5, most=3), Signals(live=30), memory(5, level=30), 3, "as before, but at most 3"),
        (of(4), Signals(live=1), memory(2, seen=2), 4, ""),
        (of(2), Signals(live=25), memory(5, seen=2), 5, ""),
    ],
)  # fmt: skip
def test_what_is_desired(scope: Scope, signals: Signals, memory: Memory, replicas: int, reason: str) -> None:
    decision = desired(scope, signals, T, memory, POLICY)
    assert (decision.replicas, decision.reason) == (replicas, reason)
    assert decision.memory.replicas == replicas


def test_slots_are_whose_word_comes_first() -> None:
    for told, slots, expected in ((4, 16, 10), (0, 16, 3), (0, 0, 5)):
        decision = desired(of(0, concurrency=told), Signals(waiting=30, slots=slots), T, memory(0), POLICY)
        assert decision.replicas == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 200), st.integers(0, 4), st.integers(0, 10))
def test_a_steady_load_settles_and_stays(live: int, others: int, begin: int) -> None:
    """No flapping: after the last step, nothing moves for an hour."""
    bounds, now = SCOPE, T
    known = fresh(of(begin), now)
    counts = []
    for _ in range(2 * 720):
        now += 5.0
        counted = of(known.replicas)
        decision = desired(counted, Signals(live=live, others=others), now, known, POLICY)
        known = decision.memory
        counts.append(decision.replicas)
    assert len(set(counts[-720:])) == 1
    assert bounds.least <= counts[-1] <= bounds.most
    slots = (counts[-1] + others) * 8
    assert live <= slots * 0.75 or counts[-1] == bounds.most
    assert counts[-1] > 0 or live <= others * 8 * 0.75


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10), st.floats(0.1, 400)), max_size=60),
    st.integers(0, 3),
    st.integers(3, 10),
)
def test_it_keeps_its_bounds_and_never_leaves_anybody_with_none(
    steps: list[tuple[int, int, float]], least: int, most: int
) -> None:
    now = T
    known = fresh(of(least), now)
    for live, waiting, passed in steps:
        now += passed
        bounds = of(known.replicas, least=least, most=most)
        before = known
        decision = desired(bounds, Signals(live=live, waiting=waiting), now, known, POLICY)
        known = decision.memory
        assert least <= decision.replicas <= most
        assert decision.replicas > 0 or not waiting
        assert bool(decision.reason) == (decision.replicas != before.replicas)
        if 0 < decision.replicas < before.replicas <= most:
            assert decision.replicas == before.replicas - 1 or now - known.busy_at >= SCOPE.idle
            assert now - before.moved_at >= POLICY.down_pause
        assert len(known.peaks) <= POLICY.window + 2


def test_a_ramp_is_met_before_it_is_there_and_let_go_step_by_step() -> None:
    now, known, counts = T, fresh(of(1), T), []
    for second in range(1800):
        now += 1.0
        live = min(second // 10, 60) if second < 900 else 3
        decision = desired(of(known.replicas), Signals(live=live), now, known, POLICY)
        known = decision.memory
        counts.append(decision.replicas)
        if second < 900 and second % 10 == 9:
            assert live <= decision.replicas * 8, f"{live} on {decision.replicas} at {second}"
    top = counts.index(max(counts))
    assert counts[:top] == sorted(counts[:top])
    assert counts[top:] == sorted(counts[top:], reverse=True)
    assert (counts[top], counts[-1]) == (10, 3)


def test_deployments_of_a_model_are_one_scope() -> None:
    def a_deployment(**changed: Any) -> Deployment:
        fixed = {"id": new_id(), "name": "n", "model": "m", "min_replicas": 1, "max_replicas": 3, "idle_timeout_s": 60}
        return Deployment(**{**fixed, **changed})

    both = [a_deployment(replicas=2, ready=1), a_deployment(min_replicas=0, idle_timeout_s=90, target_concurrency=4)]
    assert scope(both) == Scope(least=1, most=6, idle=90, replicas=2, ready=1, concurrency=4)
