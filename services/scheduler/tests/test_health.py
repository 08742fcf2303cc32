from datetime import UTC, datetime

import pytest

from common.routing import Model, Node, State
from scheduler.health import Seen, Vital, Wanted, judge, wanted

M = (Model("demo-8b", 8192),)
T = datetime(2026, 1, 1, tzinfo=UTC)
FIT = Seen(True, M, token=True)
WELL = Seen(True)
BAD = Seen(False, reason="/health failed: ClientConnectorError")


def vital(state: State, models: tuple[Model, ...] = M) -> Vital:
    return Vital(node=Node(id="n", endpoint="http://n", state=state, models=models))


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
        ("ready", [BAD, BAD, BAD], "unhealthy"),
        ("unhealthy", [WELL], "ready"),
        ("unhealthy", [BAD, Seen(True, M)], "ready"),
        ("unhealthy", [Seen(True, ())], "unhealthy"),
        ("unhealthy", [WELL, BAD], "ready"),
        ("draining", [FIT], "draining"),
        ("draining", [BAD, BAD, FIT], "draining"),
    ],
)
def test_states(state: State, looks: list[Seen], expected: State) -> None:
    known = vital(state, () if state == "warming" else M)
    for look in looks:
        known = judge(known, look, 0.0, T)
    assert known.node.state == expected


def test_models_are_kept_until_others_are_seen() -> None:
    known = judge(vital("ready"), WELL, 1.0, T)
    assert known.node.models == M
    other = (Model("other"),)
    assert judge(known, Seen(True, other), 2.0, T).node.models == other


def test_the_reason_goes_with_the_trouble() -> None:
    known = judge(vital("ready"), BAD, 1.0, T)
    assert known.reason == BAD.reason
    assert judge(known, WELL, 2.0, T).reason == ""


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        (vital("warming", ()), 0.0, Wanted(models=True, token=True)),
        (vital("ready"), 0.0, Wanted(models=True, token=False)),
        (judge(vital("ready"), Seen(True, M), 5.0, T), 14.9, Wanted(models=False, token=False)),
        (judge(vital("ready"), Seen(True, M), 5.0, T), 15.0, Wanted(models=True, token=False)),
        (judge(vital("unhealthy"), BAD, 5.0, T), 5.0, Wanted(models=True, token=False)),
        (judge(vital("draining"), Seen(True, M), 5.0, T), 6.0, Wanted(models=False, token=False)),
    ],
)
def test_what_to_look_at(known: Vital, now: float, expected: Wanted) -> None:
    assert wanted(known, now) == expected
