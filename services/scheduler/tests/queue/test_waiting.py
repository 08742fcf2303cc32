"""The queue on a real server: who waits, who is served next, who leaves, and what of it is left."""

import time
from typing import Any

LONG = 3_600_000  # ms


def test_a_slot_that_is_given_back_goes_to_the_first_in_line(queue: Any) -> None:
    queue.take("x", "a", 1, 1)
    assert [queue.wait(id, nodes=("a", 1, 1)) for id in ("y", "z")] == ["wait", "wait"]
    queue("cl_end", "x", 0, 0)
    assert queue.served() == ["y"]
    assert queue.load("a") == [1]
    assert queue("cl_waiting", LONG, "y", "z") == ["y", "a"]
    queue("cl_end", "y", 0, 0)
    queue("cl_return", "z")
    assert queue.load("a") == [0]


def test_nobody_overtakes_who_waits(queue: Any) -> None:
    assert queue.wait("x") == "wait"
    assert queue.take("new", "a", 0, 1) == []
    assert queue.take("retry", "a", 1, 1, line="") == ["a", 1]
    assert queue.wait("y", nodes=("a", 2, 1)) == "wait"
    assert queue.served() == ["x"]
    assert queue.load("a") == [2]


def test_a_node_that_arrives_serves_all_that_it_can(queue: Any) -> None:
    for number in range(5):
        assert queue.wait(f"x{number}") == "wait"
    assert queue.offer("a", 3, 1) == 3
    assert queue.served() == ["x0", "x1", "x2"]
    assert queue.offer("a", 3, 1, "b", 0, 1) == 2
    assert queue.load("a", "b") == [3, 2]


def test_a_single_request_is_served_after_one_of_a_flood(queue: Any) -> None:
    queue.take("x", "a", 1, 1)
    for number in range(100):
        queue.wait(f"flood{number}", "flood", tokens=100, nodes=("a", 1, 1))
    queue.wait("single", "quiet", tokens=100, nodes=("a", 1, 1))
    ended = "x"
    order = []
    for _ in range(3):
        queue("cl_end", ended, 0, 0)
        (ended,) = queue.served()
        order.append(ended)
    assert "single" in order[:2]


def test_shares_follow_weights(queue: Any) -> None:
    for number in range(60):
        queue.wait(f"heavy{number}", "heavy", weight=3)
        queue.wait(f"light{number}", "light", weight=1)
    queue.offer("a", 40, 1)
    served = queue.served()
    assert sum(id.startswith("heavy") for id in served) in (29, 30, 31)


def test_lines_that_share_a_node_take_turns(queue: Any) -> None:
    queue.take("x", "a", 1, 1)
    for number in range(3):
        queue.wait(f"m{number}", line="m", nodes=("a", 1, 1))
    for number in range(3):
        queue.wait(f"n{number}", line="n", nodes=("a", 1, 1))
    order, ended = [], "x"
    for _ in range(6):
        queue("cl_end", ended, 0, 0)
        (ended,) = queue.served()
        order.append(ended)
    assert order == ["m0", "n0", "m1", "n1", "m2", "n2"]


def test_a_flow_leaves_room_for_the_others(queue: Any) -> None:
    answers = [queue.wait(f"x{number}", "flood", most=10) for number in range(10)]
    assert answers == ["wait"] * 5 + ["crowded"] * 5
    assert queue.wait("y", "other", most=10) == "wait"
    assert queue.wait("z", "flood", most=1000, most_of_flow=5) == "crowded"


def test_who_is_past_the_deadline_is_passed_over(queue: Any) -> None:
    queue.wait("late", patience=0)
    queue.wait("x")
    assert queue.offer("a", 1, 1) == 1
    assert queue.served() == ["x"]
    assert queue("cl_waiting", LONG, "late") == ["late", ""]


def test_a_dead_gateways_waiters_vanish(queue: Any) -> None:
    layers = (1, "key:1", 10, 100, 5, "", "", 0, 0, 0)
    queue.wait("x", ttl=0, admission=layers)
    queue.wait("y", admission=layers)
    assert queue("cl_reap", 10, LONG) == []
    assert [line[:2] for line in queue("cl_queue")] == [["m", 1]]
    assert queue.redis.zcard(f"{{{queue.namespace}}}:live:key:1") == 1
    assert queue.redis.get(f"{{{queue.namespace}}}:rate:key:1").split()[2] == "10", "only one is charged for"


def test_a_slot_that_nobody_hears_of_is_no_lost_request(queue: Any) -> None:
    queue.wait("x", ttl=100)
    queue.wait("y")
    assert queue.offer("a", 1, 1) == 1
    deadline = time.monotonic() + 10
    while not queue.offer("a", 1, 1):
        assert time.monotonic() < deadline
    assert queue("cl_reap", 10, LONG) == []
    assert queue.served() == ["x", "y"]
    assert queue("cl_waiting", LONG, "x", "y") == ["x", "", "y", "a"]


def test_who_leaves_gives_everything_back(queue: Any) -> None:
    layers = (1, "key:1", 10, 100, 5, "t", "k", 7, 1, 1, "tenant", 0, 100)
    queue.wait("x", admission=layers)
    queue.offer("a", 1, 1)
    queue.wait("y", admission=layers, nodes=("a", 1, 1))
    queue.wait("z", admission=layers, nodes=("a", 1, 1))
    assert queue("cl_held", "t") == [[21, 0]]
    queue("cl_leave", "y")
    queue("cl_leave", "x")
    assert queue.served() == ["x", "z"]
    assert queue("cl_held", "t") == [[7, 0]]
    queue("cl_leave", "z")
    left = [key.partition(":")[2] for key in queue.names()]
    assert [key for key in left if key not in ("line:m", "spent:t")] == []


def test_limits_refuse_at_once(queue: Any) -> None:
    layers = (1, "key:1", 0, 0, 1, "", "", 0, 0, 0)
    assert queue.wait("x", admission=layers) == "wait"
    assert queue.wait("y", admission=layers) == "concurrency"


def test_arrival_survives_a_restart(queue: Any) -> None:
    queue.wait("new")
    queue.wait("old", waited=5000)
    queue.offer("a", 1, 1)
    assert queue.served() == ["old"]


def test_who_cannot_be_served_in_time_is_told_at_once(queue: Any) -> None:
    queue.take("x", "a", 1, 1)
    queue.wait("y", nodes=("a", 1, 1))
    queue.wait("z", nodes=("a", 1, 1))
    queue("cl_end", "x", 0, 0)
    time.sleep(0.05)
    queue("cl_end", "y", 0, 0)
    queue.wait("z2", nodes=("a", 1, 1))
    assert queue.wait("late", patience=10, nodes=("a", 1, 1)) == "late"
    assert queue.wait("patient", patience=10_000, nodes=("a", 1, 1)) == "wait"
