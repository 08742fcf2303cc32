from typing import Any

import msgspec
import pytest

from common.breaker import Policy
from common.routing import Node
from gateway.ejection import Ejection

A = Node(id="a", endpoint="http://a", state="ready")
B = Node(id="b", endpoint="http://b", state="ready")
POLICY = Policy(in_a_row=3, shortest=1.0, jitter=0.0, permit=10.0, calm=60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejection(clock: Clock) -> Ejection:
    return Ejection(POLICY, lambda: clock.now, lambda: 0.5)


def fit(ejection: Ejection, nodes: list[Node], request: str) -> list[Node]:
    out = ejection.out({node.id: node for node in nodes}, request)
    return [node for node in nodes if node.id not in out]


def fail(ejection: Ejection, node: Node, times: int) -> None:
    for number in range(times):
        ejection.saw(node, f"failed-{number}", False)


@pytest.mark.parametrize(
    ("endings", "left"),
    [
        ([], ["a", "b"]),
        ([False, False], ["a", "b"]),
        ([False, False, True, False], ["a", "b"]),
        ([False, False, None, None], ["a", "b"]),
        ([False, False, False], ["b"]),
        ([False, None, False, None, False], ["b"]),
    ],
)
def test_what_takes_a_node_out(ejection: Ejection, endings: list[Any], left: list[str]) -> None:
    for number, well in enumerate(endings):
        ejection.saw(A, str(number), well)
    assert [node.id for node in fit(ejection, [A, B], "r")] == left


def test_one_request_tries_a_node_whose_time_is_over(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, A, 3)
    clock.now += 1.0
    assert fit(ejection, [A, B], "first") == [A, B]
    assert fit(ejection, [A, B], "first") == [A, B]
    assert fit(ejection, [A, B], "second") == [B]
    ejection.placed("first", A)
    assert fit(ejection, [A, B], "second") == [B]
    ejection.saw(A, "first", True)
    assert fit(ejection, [A, B], "second") == [A, B]


def test_a_try_that_went_elsewhere_or_was_given_up_is_somebody_elses(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, A, 3)
    clock.now += 1.0
    for request, node in (("first", B), ("second", None)):
        assert fit(ejection, [A, B], request) == [A, B]
        ejection.placed(request, node)
    assert fit(ejection, [A, B], "third") == [A, B]
    ejection.placed("third", A)
    ejection.saw(A, "third", None)
    assert fit(ejection, [A, B], "fourth") == [A, B]


def test_a_failed_try_is_out_for_longer(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, A, 3)
    clock.now += 1.0
    fit(ejection, [A, B], "first")
    ejection.saw(A, "first", False)
    clock.now += 1.9
    assert fit(ejection, [A, B], "second") == [B]
    clock.now += 0.1
    assert fit(ejection, [A, B], "second") == [A, B]


def test_late_failures_do_not_keep_it_out(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, A, 3)
    clock.now += 1.0
    fail(ejection, A, 100)
    assert fit(ejection, [A, B], "r") == [A, B]


def test_when_the_fleets_breaker_has_moved_the_own_is_forgotten(ejection: Ejection) -> None:
    fail(ejection, A, 3)
    proven = msgspec.structs.replace(A, epoch=3)
    assert fit(ejection, [proven, B], "r") == [proven, B]
    fail(ejection, A, 100)
    assert fit(ejection, [proven, B], "r") == [proven, B]
    fail(ejection, proven, 3)
    assert fit(ejection, [proven, B], "r") == [B]
    fail(ejection, A, 100)
    assert fit(ejection, [proven, B], "r") == [B]


def test_nodes_that_work_leave_nothing_behind(ejection: Ejection, clock: Clock) -> None:
    for _ in range(3):
        ejection.saw(A, "r", True)
    assert not ejection._seen
    ejection.saw(A, "r", False)
    ejection.saw(A, "r", True)
    assert not ejection._seen
