"""The lease functions on a real server, against a model in Python, under any schedule."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from scheduler.library import code

LONG = 3_600_000  # ms
NODES = ("a", "b", "c")
ids = st.sampled_from([f"lease-{number}" for number in range(6)])
capacities = st.sampled_from([0, 1, 2, 3])
weights = st.sampled_from([0.5, 1.0, 2.0])
offers = st.dictionaries(st.sampled_from(NODES), st.tuples(capacities, weights))
randoms = st.floats(0, 1, exclude_max=True)
tokens = st.sampled_from([0, 1, 700, 2**40])


class Functions:
    def __init__(self, connection: Any) -> None:  # Any: redis-py's client, typed per protocol
        self.redis = connection
        self.namespace = uuid.uuid4().hex

    def __call__(self, name: str, *arguments: object) -> Any:
        return self.redis.fcall(name, 1, f"{{{self.namespace}}}:leases", *arguments)

    def take(self, id: str, offer: dict[str, tuple[int, float]], how: object = 0.5, ttl: int = LONG) -> Any:
        nodes = [value for node, (capacity, weight) in offer.items() for value in (node, capacity, weight)]
        return self("cl_take", id, ttl, "{}", how, "", *nodes)

    def load(self, *nodes: str) -> list[int]:
        return list(self("cl_load", *nodes))

    def pending(self, *nodes: str) -> list[int]:
        return list(self("cl_pending", *nodes))

    def keys(self) -> list[str]:
        return list(self.redis.scan_iter(match=f"{{{self.namespace}}}:*", count=1000))


@pytest.fixture
def connection(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.function_load(code(), replace=True)
        yield client


@pytest.fixture
def call(connection: Any) -> Functions:
    return Functions(connection)


class Machine(RuleBasedStateMachine):
    connection: Any

    def __init__(self) -> None:
        super().__init__()
        self.call = Functions(self.connection)
        self.held: dict[str, str] = {}
        self.live: set[str] = set()
        self.claimed: set[str] = set()
        self.reaped: set[str] = set()
        """In no node's set, whether the claim still holds or not."""
        self.tokens: dict[str, int] = {}

    def count(self, node: str) -> int:
        return sum(self.held[id] == node for id in self.live)

    @rule(id=ids, offer=offers, random=randoms, tokens=tokens)
    def take(self, id: str, offer: dict[str, tuple[int, float]], random: float, tokens: int) -> None:
        before = {node: self.count(node) for node in offer}
        answer = self.call.take(id, offer, f"{random} {tokens}")
        if id in self.live and self.held[id] in offer:
            assert answer == [self.held[id], before[self.held[id]]]
            return
        scores = {node: (before[node] + 1) / w for node, (c, w) in offer.items() if c == 0 or before[node] < c}
        if not scores:
            assert answer == []
            return
        node, count = answer
        assert scores[node] == min(scores.values())
        assert count == before[node] + 1
        assert offer[node][0] == 0 or count <= offer[node][0]
        self.tokens.setdefault(id, tokens)
        self.held[id] = node
        self.live.add(id)
        self.again(id)

    @rule(id=ids)
    def renew(self, id: str) -> None:
        assert self.call("cl_renew", LONG, id, "[1]") == ([] if id in self.held else [id])
        if id in self.held:
            self.live.add(id)
            self.again(id)

    @rule(id=ids)
    def expire(self, id: str) -> None:
        self.call("cl_renew", 0, id, "[2]")
        if id in self.held:
            self.live.discard(id)
            self.again(id)

    @rule(id=ids, node=st.sampled_from(NODES), tokens=tokens)
    def assert_held(self, id: str, node: str, tokens: int) -> None:
        assert self.call("cl_assert", id, LONG, "{}", node, "[3]", tokens) == 1
        self.tokens.setdefault(id, tokens)
        self.held[id] = node
        self.live.add(id)
        self.again(id)

    @rule(some=st.lists(ids, min_size=1, max_size=3, unique=True))
    def give_back(self, some: list[str]) -> None:
        assert self.call("cl_return", *some) == sum(id in self.held for id in some)
        for id in some:
            self.forget(id)

    @rule(limit=st.integers(1, 6), claim=st.sampled_from([0, LONG]))
    def reap(self, limit: int, claim: int) -> None:
        due = self.held.keys() - self.live - self.claimed
        found = self.call("cl_reap", limit, claim)
        assert len(found) == min(limit, len(due))
        for id, _, _, node in found:
            assert id in due
            assert node == self.held[id]
            self.reaped.add(id)
            if claim:
                self.claimed.add(id)

    @rule(id=ids)
    def settle(self, id: str) -> None:
        """Only what was reaped may be settled; a lease of a living gateway stays."""
        if id in self.live or id in self.claimed or id not in self.held:
            dropped = id in self.claimed
            assert self.call("cl_settle", id) == int(dropped)
            if dropped:
                self.forget(id)

    @rule()
    def wipe(self) -> None:
        """Redis restarts empty."""
        if keys := self.call.keys():
            self.call.redis.delete(*keys)
        for id in tuple(self.held):
            self.forget(id)

    def again(self, id: str) -> None:
        self.claimed.discard(id)
        self.reaped.discard(id)

    def forget(self, id: str) -> None:
        self.held.pop(id, None)
        self.live.discard(id)
        self.tokens.pop(id, None)
        self.again(id)

    @invariant()
    def pending_tokens_are_those_of_the_leases_on_a_node(self) -> None:
        on = {node: [id for id in self.held if self.held[id] == node and id not in self.reaped] for node in NODES}
        assert self.call.pending(*NODES) == [sum(self.tokens[id] for id in on[node]) for node in NODES]

    @invariant()
    def counts_are_those_of_live_leases(self) -> None:
        assert self.call.load(*NODES) == [self.count(node) for node in NODES]

    def teardown(self) -> None:
        assert self.call("cl_return", *[f"lease-{number}" for number in range(6)]) == len(self.held)
        assert self.call.load(*NODES) == [0, 0, 0]
        assert self.call.pending(*NODES) == [0, 0, 0]
        assert self.call.keys() == []


def test_no_schedule_leaks_or_doubles_a_slot(connection: Any) -> None:
    Machine.connection = connection
    run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=30, deadline=None))


def test_a_take_that_is_repeated_counts_once(call: Functions) -> None:
    assert call.take("x", {"a": (1, 1.0)}) == ["a", 1]
    assert call.take("x", {"a": (1, 1.0)}) == ["a", 1]
    assert call.take("y", {"a": (1, 1.0)}) == []


def test_a_retry_elsewhere_moves_the_lease_and_keeps_its_progress(call: Functions) -> None:
    call.take("x", {"a": (0, 1.0)})
    call("cl_renew", LONG, "x", "[17,0,4]")
    assert call.take("x", {"b": (0, 1.0)}) == ["b", 1]
    assert call.load("a", "b") == [0, 1]
    call("cl_renew", 0, "x", "[17,0,4]")
    assert call("cl_reap", 10, LONG) == [["x", "{}", "[17,0,4]", "b"]]


def test_equals_are_chosen_by_the_callers_random_number(call: Functions) -> None:
    offer = {"a": (0, 1.0), "b": (0, 1.0), "c": (0, 1.0)}
    chosen = []
    for random in (0.0, 0.34, 0.99):
        chosen.append(call.take("x", offer, random)[0])
        call("cl_return", "x")
    assert chosen == ["a", "b", "c"]


def test_equal_nodes_share_and_weighted_ones_take_their_part(call: Functions) -> None:
    offer = {"a": (0, 1.0), "b": (0, 1.0), "c": (0, 2.0)}
    for number in range(80):
        call.take(f"x{number}", offer, number % 7 / 7)
    assert call.load("a", "b", "c") == [20, 20, 40]


THREE = {"a": (0, 1.0), "b": (0, 1.0), "c": (0, 1.0)}


def test_tokens_weigh_as_much_as_requests_by_their_scale(call: Functions) -> None:
    assert call.take("big", THREE, "0.99 9000 1000")[0] == "c"
    chosen = [call.take(f"x{number}", THREE, "0.99 100 1000")[0] for number in range(16)]
    assert Counter(chosen) == {"a": 8, "b": 8}
    assert call.pending("a", "b", "c", "unknown") == [800, 800, 9000, 0]


def test_a_bias_counts_as_requests(call: Functions) -> None:
    chosen = [call.take(f"x{number}", THREE, "0 0 0 0 0 2.5 0 0")[0] for number in range(7)]
    assert Counter(chosen) == {"a": 1, "b": 3, "c": 3}


def test_the_preferred_are_taken_in_their_order_while_they_have_room(call: Functions) -> None:
    offer = {"b": (2, 1.0), "c": (1, 1.0), "a": (0, 1.0)}
    assert [call.take(f"x{number}", offer, "0 0 0 2")[0] for number in range(5)] == ["b", "b", "c", "a", "a"]


def test_the_preferred_are_left_over_a_bound_of_the_average(call: Functions) -> None:
    chosen = [call.take(f"x{number}", THREE, "0 0 0 1 1.5")[0] for number in range(30)]
    assert chosen[0] == "a"
    assert Counter(chosen)["a"] == 18  # a load of 18 is 1.5 times the average of 18, 7 and 7, and 2


def test_an_expired_lease_frees_its_slot_though_nobody_reaps(call: Functions) -> None:
    assert call.take("x", {"a": (1, 1.0)}, ttl=30) == ["a", 1]
    deadline = time.monotonic() + 10
    while call.take("y", {"a": (1, 1.0)}) == []:
        assert time.monotonic() < deadline
    assert call.load("a") == [1]


def test_a_claim_that_runs_out_is_reaped_again(call: Functions) -> None:
    call.take("x", {"a": (0, 1.0)}, ttl=0)
    assert len(call("cl_reap", 10, 30)) == 1
    deadline = time.monotonic() + 10
    while not call("cl_reap", 10, LONG):
        assert time.monotonic() < deadline


def test_two_reapers_never_hold_the_same_lease(call: Functions) -> None:
    for number in range(10):
        call.take(f"x{number}", {"a": (0, 1.0)}, ttl=0)
    first, second = call("cl_reap", 6, LONG), call("cl_reap", 6, LONG)
    assert sorted(lease[0] for lease in first + second) == sorted(f"x{number}" for number in range(10))


def test_a_lease_whose_record_vanished_is_dropped(call: Functions) -> None:
    call.take("x", {"a": (0, 1.0)}, ttl=0)
    call.redis.delete(f"{{{call.namespace}}}:lease:x")
    assert call("cl_reap", 10, LONG) == []
    assert call.redis.zcard(f"{{{call.namespace}}}:leases") == 0


def test_many_leases_are_returned_in_one_call(call: Functions) -> None:
    for number in range(100):
        call.take(f"x{number}", {"a": (0, 1.0)})
    assert call("cl_return", *[f"x{number}" for number in range(100)]) == 100
    assert call.keys() == []


def test_a_wrong_number_of_arguments_is_refused(call: Functions) -> None:
    with pytest.raises(redis.ResponseError, match="cl_take wants"):
        call("cl_take", "x", LONG, "{}", 0.5, "", "a", 1)
