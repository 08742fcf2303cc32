from datetime import UTC, datetime
from typing import Any

import pytest

from common.breaker import Breaker, Policy, Window, permitted
from common.routing import Model, Node, State
from scheduler.health import Seen, Vital, Wanted, adopted, heard, judge, wanted

M = (Model("demo-8b", 8192),)
T = datetime(2026, 1, 1, tzinfo=UTC)
FIT = Seen(True, M, token=True)
WELL = Seen(True)
BAD = Seen(False, reason="/health failed: ClientConnectorError")


POLICY = Policy(in_a_row=3, shortest=1.0, jitter=0.0)


def vital(state: State, models: tuple[Model, ...] = M, **known: Any) -> Vital:
    if state == "unhealthy":
        opened = Breaker(state="open", epoch=1, until=T.timestamp(), openings=1)
        known["breaker"] = permitted(opened, "me", T.timestamp(), POLICY)
    return Vital(node=Node(id="n", endpoint="http://n", state=state, models=models), **known)


def judged(known: Vital, seen: Seen, now: float = 0.0) -> Vital:
    return judge(known, seen, now, T, 0.5, POLICY)


@pytest.mark.parametrize(
    ("state", "looks", "expected"),
    [
        ("warming", [], "warming"),
        ("warming", [WELL], "warming"),
        ("warming", [Seen(True, M)], "warming"),
        ("warming", [Seen(True, (), token=True)], "warming"),
        ("warming", [BAD, BAD, BAD], "warming"),
        ("warming", [BAD, FIT], "ready"),
        ("ready", [BAD], "ready"),
        ("ready", [BAD, WELL, BAD], "ready"),
        ("ready", [BAD, BAD], "unhealthy"),
        ("ready", [BAD, BAD, FIT], "unhealthy"),
        ("unhealthy", [WELL], "unhealthy"),
        ("unhealthy", [Seen(True, M)], "unhealthy"),
        ("unhealthy", [FIT], "ready"),
        ("unhealthy", [Seen(True, (), token=True)], "unhealthy"),
        ("unhealthy", [BAD, FIT], "unhealthy"),
        ("draining", [FIT], "draining"),
        ("draining", [BAD, BAD, FIT], "draining"),
    ],
)
def test_states(state: State, looks: list[Seen], expected: State) -> None:
    known = vital(state, () if state == "warming" else M)
    for look in looks:
        known = judged(known, look)
    assert known.node.state == expected


def test_each_move_begins_an_epoch_that_the_routes_carry() -> None:
    known = vital("ready")
    assert known.node.epoch == 0
    lost = judged(judged(known, BAD), BAD)
    assert (lost.node.epoch, lost.breaker.state, lost.breaker.until) == (1, "open", T.timestamp() + 1)


def test_models_are_kept_until_others_are_seen() -> None:
    known = judged(vital("ready"), WELL, 1.0)
    assert known.node.models == M
    other = (Model("other"),)
    assert judged(known, Seen(True, other), 2.0).node.models == other


def test_the_reason_goes_with_the_trouble() -> None:
    known = judged(vital("ready"), BAD, 1.0)
    assert known.reason == BAD.reason
    assert judged(known, WELL, 2.0).reason == ""


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        (vital("warming", ()), 0.0, Wanted(models=True, token=True)),
        (vital("ready"), 0.0, Wanted(models=True, token=False)),
        (judged(vital("ready"), Seen(True, M), 5.0), 14.9, Wanted(models=False, token=False)),
        (judged(vital("ready"), Seen(True, M), 5.0), 15.0, Wanted(models=True, token=False)),
        (vital("ready", doubt="3 requests in a row failed", models_at=5.0), 5.0, Wanted(models=True, token=True)),
        (vital("unhealthy", models_at=5.0), 5.0, Wanted(models=True, token=True)),
        (judged(vital("draining"), Seen(True, M), 5.0), 6.0, Wanted(models=False, token=False)),
    ],
)
def test_what_to_look_at(known: Vital, now: float, expected: Wanted) -> None:
    assert wanted(known, now) == expected


@pytest.mark.parametrize(
    ("state", "results", "last", "expected", "doubt"),
    [
        ("ready", [(0, 0, 2)], False, "ready", False),
        ("ready", [(0, 0, 2), (0, 1, 0), (0, 0, 2)], False, "ready", False),
        ("ready", [(0, 0, 2), (0, 0, 1)], False, "unhealthy", False),
        ("ready", [(0, 0, 3)], True, "ready", True),
        ("ready", [(7, 0, 9)], False, "ready", False),
        ("draining", [(0, 0, 9)], False, "draining", False),
        ("warming", [(0, 0, 9)], False, "warming", False),
    ],
)
def test_requests_that_fail(
    state: State, results: list[tuple[int, int, int]], last: bool, expected: State, doubt: bool
) -> None:
    known = vital(state)
    for epoch, good, bad in results:
        known = heard(known, epoch, good, bad, T, 0.5, POLICY, last=last)
    assert (known.node.state, bool(known.doubt)) == (expected, doubt)


@pytest.mark.parametrize(
    ("seen", "state"), [(FIT, "ready"), (WELL, "unhealthy"), (BAD, "unhealthy"), (Seen(True, M), "unhealthy")]
)
def test_the_last_node_goes_when_it_makes_no_token_either(seen: Seen, state: State) -> None:
    doubted = heard(vital("ready"), 0, 0, 3, T, 0.5, POLICY, last=True)
    after = judged(doubted, seen)
    assert (after.node.state, after.doubt, after.window) == (state, "", Window())


def test_late_results_of_an_older_epoch_change_nothing() -> None:
    back = judged(vital("unhealthy"), FIT)
    assert back.node.state == "ready"
    for epoch in range(back.breaker.epoch):
        assert heard(back, epoch, 0, 100, T, 0.5, POLICY, last=False) == back


@pytest.mark.parametrize(
    ("state", "breaker", "expected"),
    [
        ("ready", Breaker(epoch=4), "ready"),
        ("ready", Breaker(state="open", epoch=5, reason="it fell"), "unhealthy"),
        ("unhealthy", Breaker(epoch=6), "ready"),
        ("warming", Breaker(epoch=0), "warming"),
        ("draining", Breaker(epoch=2), "draining"),
    ],
)
def test_a_predecessors_breaker_is_taken_over(state: State, breaker: Breaker, expected: State) -> None:
    node = Node(id="n", endpoint="http://n", state=state, models=M)
    after = adopted(Vital(node=node), breaker)
    assert (after.node.state, after.node.epoch, after.breaker) == (expected, breaker.epoch, breaker)
