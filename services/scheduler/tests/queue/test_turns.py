"""Any schedule of waiting, slots, deaths and leaving, against weighted deficit round robin in Python."""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

LONG = 3_600_000  # ms
FLOWS = ("a/high", "b/normal", "c/low")
flows = st.sampled_from(FLOWS)
costs = st.sampled_from([1, 7, 100, 4096])
weights = st.sampled_from([0.5, 1, 3, 8])
AGE = 1_000_000  # ms: so much older that the time a test takes does not matter


class Waiter(msgspec.Struct):
    id: str
    flow: str
    weight: float
    cost: int
    age: int
    expired: bool = False


class Line:
    """Who is next, by what each flow has saved."""

    def __init__(self) -> None:
        self.waiting: list[Waiter] = []
        self.round = 0.0
        self.start: dict[str, float] = {}

    def add(self, waiter: Waiter) -> None:
        if not self.waiting:
            self.round = 0.0
        if waiter.flow not in self.start:
            self.start[waiter.flow] = self.round
        self.waiting.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        self.waiting.remove(waiter)
        if not self.of(waiter.flow):
            del self.start[waiter.flow]

    def of(self, flow: str) -> list[Waiter]:
        return sorted((w for w in self.waiting if w.flow == flow), key=lambda w: (-w.age, w.id))

    def due(self, flow: str) -> float:
        first = self.of(flow)[0]
        return self.start[flow] + first.cost / first.weight

    def turn(self) -> Waiter | None:
        while self.waiting:
            flow = min(self.start, key=lambda flow: (self.due(flow), flow))
            first, due = self.of(flow)[0], self.due(flow)
            if first.expired:
                self.remove(first)
                continue
            self.round = max(self.round, due)
            self.start[flow] = due
            self.remove(first)
            return first
        return None

    def sweep(self) -> None:
        for waiter in [w for w in self.waiting if w.expired]:
            self.remove(waiter)


class Machine(RuleBasedStateMachine):
    make_queue: Callable[[], Any]  # Any: of the conftest

    def __init__(self) -> None:
        super().__init__()
        self.queue = type(self).make_queue()
        self.line = Line()
        self.capacity = 0
        self.live: set[str] = set()
        self.count = 0
        self.served: list[str] = []

    @property
    def nodes(self) -> tuple[object, ...]:
        return ("a", self.capacity, 1) if self.capacity else ()

    def pump(self) -> None:
        while len(self.live) < self.capacity and (waiter := self.line.turn()):
            self.live.add(waiter.id)
            self.served.append(waiter.id)

    def some(self, data: st.DataObject, ids: Any) -> str:
        return cast("str", data.draw(st.sampled_from(sorted(ids) or ["none"])))

    @rule(flow=flows, weight=weights, cost=costs, age=st.integers(0, 3))
    def wait(self, flow: str, weight: float, cost: int, age: int) -> None:
        self.count += 1
        waiter = Waiter(f"{self.count:04}", flow, weight, cost, age)
        answer = self.queue.wait(
            waiter.id, flow, weight=weight, tokens=cost, waited=age * AGE, nodes=self.nodes, most=10**6
        )
        self.line.sweep()
        self.pump()
        if not self.line.waiting and len(self.live) < self.capacity:
            assert answer == "ok"
            self.live.add(waiter.id)
        else:
            assert answer == "wait"
            self.line.add(waiter)

    @rule(capacity=st.integers(0, 4))
    def offer(self, capacity: int) -> None:
        self.capacity = capacity
        before = len(self.live)
        given = self.queue.offer(*self.nodes)
        self.line.sweep()
        self.pump()
        assert given == len(self.live) - before

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        id = self.some(data, self.live)
        assert self.queue("cl_end", id, 5, 0) == int(id in self.live)
        if id in self.live:
            self.live.discard(id)
            self.freed()

    def freed(self) -> None:
        """One slot, one turn; what is on offer is as somebody told while others waited."""
        if self.line.waiting and len(self.live) < self.capacity and (waiter := self.line.turn()):
            self.live.add(waiter.id)
            self.served.append(waiter.id)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ids = {waiter.id for waiter in self.line.waiting} | self.live
        id = self.some(data, ids)
        self.queue("cl_leave", id)
        if id in self.live:
            self.live.discard(id)
            self.freed()
        for waiter in [w for w in self.line.waiting if w.id == id]:
            self.line.remove(waiter)

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        id = self.some(data, {waiter.id for waiter in self.line.waiting if not waiter.expired} | self.live)
        answer = self.queue("cl_waiting", LONG, id)
        waits = id in {waiter.id for waiter in self.line.waiting}
        assert answer == ([] if waits else [id, "a" if id in self.live else ""])

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        id = self.some(data, {waiter.id for waiter in self.line.waiting})
        for waiter in self.line.waiting:
            if waiter.id == id:
                self.queue("cl_waiting", 0, id)
                waiter.expired = True

    @rule()
    def reap(self) -> None:
        assert self.queue("cl_reap", 1000, LONG) == []
        self.line.sweep()

    @invariant()
    def turns_are_the_models(self) -> None:
        assert self.queue.served() == self.served
        self.served = []
        assert self.queue.load("a") == [len(self.live)]
        lines = self.queue("cl_queue")
        if self.line.waiting:
            ((name, length, _, _, counts),) = lines
            assert (name, length) == ("m", len(self.line.waiting))
            told = dict(zip(counts[::2], counts[1::2], strict=True))
            assert told == {flow: len(self.line.of(flow)) for flow in self.line.start}
        else:
            assert lines == []

    def teardown(self) -> None:
        for id in [*self.live, *[waiter.id for waiter in self.line.waiting]]:
            self.queue("cl_leave", id)
        left = [key.partition(":")[2] for key in self.queue.names()]
        assert set(left) <= {"line:m", "granted:gateway"}
        for key in self.queue.names():
            assert self.queue.redis.pttl(key) > 0, "and what is left goes by itself"


def test_no_schedule_loses_a_waiter_or_serves_one_twice(make_queue: Callable[[], Any]) -> None:
    Machine.make_queue = staticmethod(make_queue)
    run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=30, deadline=None))


def test_nobody_gets_less_than_its_share_minus_one_request(make_queue: Callable[[], Any]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(
        requests=st.lists(st.tuples(flows, st.integers(1, 4096)), min_size=10, max_size=50),
        weighs=st.tuples(weights, weights, weights),
    )
    def fair(requests: list[tuple[str, int]], weighs: tuple[float, float, float]) -> None:
        check(make_queue(), requests, dict(zip(FLOWS, weighs, strict=True)))

    fair()


def check(queue: Any, requests: list[tuple[str, int]], weight: dict[str, float]) -> None:
    """While two flows wait, neither is ahead of the other by more than a request of each."""
    cost = {f"{number:04}": one for number, one in enumerate(requests)}
    left: Counter[str] = Counter(flow for flow, _ in requests)
    for id, (flow, tokens) in cost.items():
        queue.wait(id, flow, weight=weight[flow], tokens=tokens, most=10**6)
    largest = {flow: max([tokens for name, tokens in requests if name == flow], default=0) for flow in FLOWS}
    had = dict.fromkeys(FLOWS, 0.0)
    assert queue.offer("a", 1, 1) == 1
    for _ in requests:
        (id,) = queue.served()
        flow, tokens = cost.pop(id)
        left[flow] -= 1
        had[flow] += tokens / weight[flow]
        for one in +left:
            for other in +left:
                most = largest[one] / weight[one] + largest[other] / weight[other]
                assert had[one] - had[other] <= most * (1 + 1e-9)
        queue("cl_end", id, 0, 0)
