"""Admission on a real server, against a model in Python: limits, reservations and money under any schedule."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from scheduler.library import code

LONG = 3_600_000  # ms
# so low that none drains by as much as one request or ten tokens while an example runs
LAYERS = {"global:": (40, 400, 5), "tenant:t": (25, 0, 0), "key:1": (12, 90, 2), "key:2": (0, 200, 3)}
CHAINS = (("global:", "tenant:t", "key:1"), ("global:", "tenant:t", "key:2"), ("global:",), ())
LIMITS = {"tenant": 300, "key:1": 120}
SCOPE = "t"
KINDS = ("requests", "tokens", "concurrency")


class Call:
    def __init__(self, connection: Any) -> None:  # Any: redis-py's client, typed per protocol
        self.redis = connection
        self.namespace = f"a{time.monotonic_ns():x}"

    def __call__(self, name: str, *arguments: object) -> Any:
        return self.redis.fcall(name, 1, f"{{{self.namespace}}}:leases", *arguments)

    def admit(
        self,
        id: str,
        chain: tuple[str, ...] = (),
        tokens: int = 0,
        hold: tuple[str, int, list[tuple[str, int, int]]] = ("", 0, []),
        nodes: tuple[object, ...] = ("a", 0, 1),
        ttl: int = LONG,
        layers: dict[str, tuple[int, int, int]] = LAYERS,
    ) -> Any:
        limits = [part for name in chain for part in (name, *layers[name])]
        key, amount, budgets = hold
        money = (SCOPE if budgets else "", key, amount, 1, len(budgets), *[p for b in budgets for p in b])
        return self("cl_admit", id, ttl, "{}", 0.5, "", tokens, len(chain), *limits, *money, *nodes)

    def contents(self) -> dict[str, bytes]:
        keys = list(self.redis.scan_iter(match=f"{{{self.namespace}}}:*", count=1000))
        return {key: self.redis.dump(key) for key in keys}

    def rate(self, layer: str) -> tuple[float, float, int]:
        """Requests and tokens that have been used, tokens reserved."""
        value = self.redis.get(f"{{{self.namespace}}}:rate:{layer}")
        requests, tokens, reserved, _ = (int(part) for part in value.split()) if value else (0, 0, 0, 0)
        return requests / 60_000, tokens / 60_000, reserved


@pytest.fixture
def connection(redis_url: str) -> Iterator[Any]:
    # RESP2 strings would hide binary dumps: these are read as latin-1
    with redis.Redis.from_url(redis_url, decode_responses=True, encoding="latin-1") as client:
        client.function_load(code(), replace=True)
        yield client


@pytest.fixture
def call(connection: Any) -> Call:
    return Call(connection)


class Lease(msgspec.Struct):
    chain: tuple[str, ...]
    tokens: int
    key: str
    node: str
    state: str = "live"


class Machine(RuleBasedStateMachine):
    connection: Any

    def __init__(self) -> None:
        super().__init__()
        self.call = Call(self.connection)
        self.count = 0
        self.leases: dict[str, Lease] = {}
        self.money: dict[str, tuple[str, int, str]] = {}
        self.recorded: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        """What requests have truly cost, by budget."""
        self.requests: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.version = 1
        self.began = time.monotonic()

    def some(self, data: st.DataObject) -> str:
        return cast("str", data.draw(st.sampled_from(sorted(self.leases) or ["none"])))

    def reserved(self, layer: str) -> int:
        mine = [lease.tokens for lease in self.leases.values() if layer in lease.chain]
        limit = LAYERS[layer][1]
        return sum(min(tokens, limit) for tokens in mine) if limit else 0

    def live(self, layer: str) -> int:
        return sum(lease.state == "live" and layer in lease.chain for lease in self.leases.values())

    def on(self, node: str) -> int:
        return sum(lease.state == "live" and lease.node == node for lease in self.leases.values())

    def pending(self, budget: str) -> int:
        return sum(amount for _, amount, key in self.money.values() if budget in ("tenant", f"key:{key}"))

    @property
    def late(self) -> bool:
        """So much has drained on a busy machine that what is used is not known to a request any more."""
        return time.monotonic() - self.began > 0.9

    def refused(self, chain: tuple[str, ...], tokens: int) -> set[tuple[str, str]]:
        found = set()
        for at, layer in enumerate(chain, 1):
            requests, allowed, concurrency = LAYERS[layer]
            if requests and self.requests[layer] + 1 > requests:
                found.add(("requests", str(at)))
            if allowed and self.used[layer] + self.reserved(layer) + min(tokens, allowed) > allowed:
                found.add(("tokens", str(at)))
            if concurrency and self.live(layer) >= concurrency:
                found.add(("concurrency", str(at)))
        return found

    @rule(
        chain=st.sampled_from(CHAINS),
        tokens=st.sampled_from([0, 10, 40, 100, 500]),
        amount=st.sampled_from([0, 20, 50]),
        budgeted=st.booleans(),
        capacity=st.sampled_from([0, 1, 3]),
    )
    def admit(self, chain: tuple[str, ...], tokens: int, amount: int, budgeted: bool, capacity: int) -> None:
        if self.late:
            return
        self.count += 1
        id = f"r{self.count}"
        key = chain[-1][-1] if len(chain) == 3 else "3"
        names = ["tenant", *(["key:1"] if key == "1" else [])] if budgeted else []
        budgets = [(name, 0, LIMITS[name]) for name in names]
        before = self.call.contents()
        limited = self.refused(chain, tokens)
        poor = [str(at) for at, n in enumerate(names, 1) if self.recorded[n] + self.pending(n) + amount > LIMITS[n]]
        full = capacity and self.on("a") >= capacity
        answer = self.call.admit(id, chain, tokens, (key, amount, budgets), ("a", capacity, 1))
        if limited:
            assert (answer[0], answer[1]) in limited
            assert answer[2] > 0
        elif poor:
            assert answer[:2] == ["budget", poor[0]]
        elif full:
            assert answer[0] == "full"
        else:
            assert answer[:3] == ["ok", "a", self.on("a") + 1]
            self.leases[id] = Lease(chain, tokens, key, "a")
            self.requests.update(chain)
            if budgeted and amount:
                self.money[id] = ("held", amount, key)
            return
        assert self.call.contents() == before, "a refusal leaves nothing behind"

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        id = self.some(data)
        if id in self.leases:
            self.call("cl_take", id, LONG, "{}", 0.5, "", "b", 0, 1)
            self.leases[id].node, self.leases[id].state = "b", "live"

    @rule(data=st.data(), tokens=st.sampled_from([0, 30, 120]))
    def renew(self, data: st.DataObject, tokens: int) -> None:
        id = self.some(data)
        self.call("cl_renew", LONG, id, f"[{tokens},0,0]")
        if id in self.leases:
            self.leases[id].state = "live"

    @rule(data=st.data(), tokens=st.sampled_from([0, 30, 120]))
    def expire(self, data: st.DataObject, tokens: int) -> None:
        id = self.some(data)
        self.call("cl_renew", 0, id, f"[{tokens},0,0]")
        if id in self.leases:
            self.leases[id].state = "expired"

    @rule(data=st.data(), tokens=st.sampled_from([0, 10, 40, 100]), part=st.sampled_from([0, 1, 2]))
    def end(self, data: st.DataObject, tokens: int, part: int) -> None:
        id = self.some(data)
        cost = self.money[id][1] * part // 2 if id in self.money else 7
        for repeated in (False, True):
            assert self.call("cl_end", id, tokens, cost) == int(id in self.leases and not repeated)
        self.close(id, tokens, cost)

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        id = self.some(data)
        self.call("cl_return", id)
        self.close(id, 0, 0)

    @rule()
    def reap_and_settle(self) -> None:
        for id, _, progress, _ in self.call("cl_reap", 100, LONG):
            assert self.leases[id].state == "expired"
            assert self.call("cl_settle", id) == 1
            held = self.money.get(id, ("held", 0, ""))[1]
            self.close(id, msgspec.json.decode(progress)[0], held)

    def close(self, id: str, tokens: int, cost: int) -> None:
        lease = self.leases.pop(id, None)
        if lease is None:
            return
        for layer in lease.chain:
            if LAYERS[layer][1]:
                self.used[layer] += tokens
        if id in self.money:
            _, _, key = self.money.pop(id)
            self.pay(key, cost)
            if cost:
                self.money[id] = ("spent", cost, key)

    def pay(self, key: str, cost: int) -> None:
        self.paid.update({"tenant": cost, f"key:{key}": cost})

    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """Billing has recorded some, perhaps before their gateway has ended them."""
        version, ids = self.call("cl_unrecorded", SCOPE)
        assert set(ids) == set(self.money)
        assert int(version) in (0, self.version) or not self.recorded
        done = [id for id in ids if data.draw(st.booleans())]
        for id in done:
            kind, amount, key = self.money.pop(id)
            if kind == "held":
                self.pay(key, amount)
            self.recorded.update({"tenant": amount, f"key:{key}": amount})
        self.version += 1
        spent = [part for pair in self.recorded.items() for part in pair]
        assert self.call("cl_record", SCOPE, self.version, len(spent) // 2, *spent, *done) == 1
        assert self.call("cl_record", SCOPE, self.version - 1, 1, "tenant", 10**6, *done) == 0

    @invariant()
    def everything_is_accounted_for(self) -> None:
        for layer in LAYERS:
            requests, tokens, reserved = self.call.rate(layer)
            assert reserved == self.reserved(layer)
            if self.late:
                continue
            if LAYERS[layer][0]:
                assert self.requests[layer] - 1 < requests <= self.requests[layer]
            assert self.used[layer] - 10 < tokens <= self.used[layer]
        held = sum(amount for kind, amount, _ in self.money.values() if kind == "held")
        spent = sum(amount for kind, amount, _ in self.money.values() if kind == "spent")
        assert self.call("cl_held", SCOPE) == [[held, spent]]
        assert self.call("cl_load", "a", "b") == [self.on("a"), self.on("b")]
        for budget, limit in LIMITS.items():
            assert self.paid[budget] <= limit

    def teardown(self) -> None:
        self.call("cl_end", *[part for id in self.leases for part in (id, 0, 0)])
        _, ids = self.call("cl_unrecorded", SCOPE)
        self.call("cl_record", SCOPE, self.version + 1, 0, *ids)
        assert self.call("cl_held", SCOPE) == [[0, 0]]
        assert all(self.call.rate(layer)[2] == 0 for layer in LAYERS)
        rest = {key.partition(":")[2] for key in self.call.contents()}
        assert rest <= {f"rate:{layer}" for layer in LAYERS} | {f"spent:{SCOPE}"}, rest
        for key in self.call.contents():
            assert self.call.redis.pttl(key) > 0, "and what is left goes by itself"


def test_no_schedule_leaks_or_doubles_what_a_request_takes(connection: Any) -> None:
    Machine.connection = connection
    run_state_machine_as_test(Machine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


def test_a_minute_holds_no_more_than_its_allowance_however_hard_one_tries(call: Call) -> None:
    layers = {"l": (600, 0, 0)}
    passed: list[tuple[float, float]] = []
    number = 0
    while number < len(passed) + 1000:
        number += 1
        before = time.monotonic()
        if call.admit(f"x{number}", ("l",), layers=layers)[0] == "ok":
            passed.append((before, time.monotonic()))
    assert len(passed) >= 600
    for first, (began, _) in enumerate(passed):
        for last in range(first + 600, len(passed)):
            assert last - first + 1 <= 600 + 10 * (passed[last][1] - began) + 1


def test_what_was_used_takes_the_place_of_the_estimate(call: Call) -> None:
    layers = {"l": (0, 1000, 0)}
    assert call.admit("x", ("l",), 600, layers=layers)[6:8] == [1000, 400]
    assert call.admit("y", ("l",), 600, layers=layers)[:2] == ["tokens", "1"]
    call("cl_end", "x", 100, 0)
    assert call.admit("y", ("l",), 600, layers=layers)[7] in range(300, 304)
    call("cl_end", "y", 2000, 0)
    kind, _, wait, *_ = call.admit("z", ("l",), 1, layers=layers)
    assert kind == "tokens"
    assert 60_000 < wait < 70_000, "a debt is paid back before anyone else passes"


def test_one_request_above_the_allowance_passes_alone(call: Call) -> None:
    layers = {"l": (0, 100, 0)}
    assert call.admit("x", ("l",), 5000, layers=layers)[0] == "ok"
    assert call.admit("y", ("l",), 1, layers=layers)[0] == "tokens"


def test_a_refusal_names_the_layer_that_lasts_longest(call: Call) -> None:
    layers = {"wide": (60, 0, 1), "narrow": (1, 0, 0)}
    call.admit("x", ("wide", "narrow"), layers=layers)
    kind, which, wait, *standing = call.admit("y", ("wide", "narrow"), layers=layers)
    assert (kind, which) == ("requests", "2")
    assert 59_000 < wait <= 60_000
    assert standing[:2] == [1, 0]


def test_a_slot_of_a_layer_is_free_again_when_its_lease_expires(call: Call) -> None:
    layers = {"l": (0, 0, 1)}
    call.admit("x", ("l",), ttl=30, layers=layers)
    deadline = time.monotonic() + 10
    while call.admit("y", ("l",), layers=layers)[0] != "ok":
        assert time.monotonic() < deadline
    assert call.admit("z", ("l",), layers=layers)[:2] == ["concurrency", "1"]


@pytest.mark.parametrize("limit", [1, 10**6, 2**53 - 1])
def test_not_a_micro_dollar_more_than_the_limit(call: Call, limit: int) -> None:
    spent = limit - limit // 3 - 1

    def hold(amount: int) -> tuple[str, int, list[tuple[str, int, int]]]:
        return ("k", amount, [("tenant", spent, limit)])

    assert call.admit("x", hold=hold(limit // 3 + 2))[:2] == ["budget", "1"]
    assert call.admit("y", hold=hold(limit // 3 + 1))[0] == "ok"
    assert call("cl_held", SCOPE) == [[limit // 3 + 1, 0]]
    assert call.admit("z", hold=hold(1))[:2] == ["budget", "1"]
    assert call.admit("z", hold=hold(0))[0] == "ok"


def test_an_older_account_changes_nothing_but_forgets_what_it_includes(call: Call) -> None:
    call.admit("x", hold=("k", 5, [("tenant", 0, 10)]))
    call("cl_end", "x", 0, 4)
    assert call("cl_record", SCOPE, 9, 1, "tenant", 4) == 1
    assert call.admit("y", hold=("k", 3, [("tenant", 0, 10)]))[0] == "budget", "4 twice, for a moment"
    assert call("cl_record", SCOPE, 8, 1, "tenant", 0, "x") == 0
    assert call.admit("y", hold=("k", 6, [("tenant", 0, 10)]))[0] == "ok"


def test_the_dead_gateways_request_stays_spent_until_it_is_recorded(call: Call) -> None:
    call.admit("x", hold=("k", 6, [("tenant", 0, 10)]), ttl=0)
    assert [lease[0] for lease in call("cl_reap", 10, LONG)] == ["x"]
    call("cl_settle", "x")
    assert call("cl_held", SCOPE) == [[0, 6]]
    call("cl_record", SCOPE, 2, 1, "tenant", 2, "x")
    assert call("cl_held", SCOPE) == [[0, 0]]
    assert call.admit("y", hold=("k", 8, [("tenant", 0, 10)]))[0] == "ok"


def test_what_an_emptied_server_held_is_charged_again_once(call: Call) -> None:
    def claim(id: str, node: str = "a") -> None:
        limits = ("key:1", *LAYERS["key:1"])
        money = (SCOPE, "1", 50, 1, 1, "tenant", 0, LIMITS["tenant"])
        assert call("cl_assert", id, LONG, "{}", node, "[1]", 30, 30, 1, *limits, *money) == 1

    for id, node in (("r", "a"), ("s", "b"), ("r", "a"), ("s", "a")):
        claim(id, node)
    assert call.rate("key:1") == (0, 0, 60), "the requests themselves began before"
    assert call("cl_held", SCOPE) == [[100, 0]]
    assert call("cl_load", "a", "b") == [2, 0]
    assert call.admit("t", ("key:1",))[0] == "concurrency"
    assert call("cl_end", "r", 10, 20, "s", 0, 0) == 2
    assert call.rate("key:1")[2] == 0
    assert call("cl_held", SCOPE) == [[0, 20]]
    assert call.admit("t", ("key:1",))[0] == "ok"
