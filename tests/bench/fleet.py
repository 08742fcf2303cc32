"""`python -m bench.fleet`: 200 simulated nodes, skewed prompts, spot losses; each strategy beside round robin.

A discrete-event simulation with a virtual clock. Where a request goes is decided by the gateway's own code on exact
counts, as Redis keeps them; engine loads are a second old, as they are in life.
"""

import argparse
import heapq
import itertools
import sys
import time
from collections import Counter, OrderedDict, deque
from random import Random

import msgspec

from common.routing import Load, Node, Policy, Strategy
from gateway.placing import picking, strategy
from gateway.placing.known import Known
from gateway.placing.pool import Pool
from gateway.placing.wanted import Wanted

SLOTS = 16
"""Requests that an engine runs at once; others wait in it."""
PREFIXES, SHARED, OWN = 2000, 2000, 150
"""System prompts, of a popularity like 1/rank; their tokens, and those of each request's own."""
CACHED = 60
"""Prefixes that an engine's cache holds."""
PREFILL, DECODE = 0.000_15, 0.010
"""Seconds a token."""
OUTPUT = 180
UTILISATION = 0.8
LOST_EVERY, AWAY = 4.0, 60.0
"""Seconds between two spot losses, and until the node is replaced."""


class Engine:
    def __init__(self) -> None:
        self.running: set[int] = set()
        self.queue: deque[int] = deque()
        self.prefixes: OrderedDict[int, None] = OrderedDict()

    def cached(self, prefix: int) -> bool:
        hit = prefix in self.prefixes
        self.prefixes[prefix] = None
        self.prefixes.move_to_end(prefix)
        if len(self.prefixes) > CACHED:
            self.prefixes.popitem(last=False)
        return hit


class Result(msgspec.Struct):
    queued: list[float]
    hits: int = 0
    tokens: int = 0
    spread: float = 0.0
    decision_us: float = 0.0

    def p99(self) -> float:
        return sorted(self.queued)[int(len(self.queued) * 0.99)]


class Fleet:
    def __init__(self, count: int, how: Strategy, seed: int) -> None:
        self.random = Random(seed)
        self.policy = Policy(strategy=how)
        self.nodes = {
            f"n{number}": Node(id=f"n{number}", endpoint="http://n", state="ready") for number in range(count)
        }
        self.engines = {id: Engine() for id in self.nodes}
        self.live: Counter[str] = Counter()
        self.pending: Counter[str] = Counter()
        self.up: dict[str, float | None] = dict.fromkeys(self.nodes)
        self.loads: dict[str, Load] = {}
        self.pool = self._pool()
        self.prefix: dict[int, int] = {}
        self.output: dict[int, int] = {}
        self.at: dict[int, str] = {}
        self.asked: dict[int, float] = {}
        self.result = Result([])
        self.events: list[tuple[float, int, str, int | str]] = []
        self.numbers = itertools.count()
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, PREFIXES + 1)))
        self.spent = 0.0
        self.decisions = 0

    def _pool(self) -> Pool:
        return Pool(tuple(self.nodes[id] for id in self.nodes if id in self.engines), self.policy)

    def after(self, when: float, what: str, which: int | str) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what, which))

    def run(self, seconds: float) -> Result:
        mean = (SHARED + OWN) * PREFILL / 2 + OUTPUT * DECODE
        rate = UTILISATION * len(self.nodes) * SLOTS / mean
        self.after(0.0, "arrive", 0)
        self.after(LOST_EVERY, "lose", 0)
        self.after(1.0, "look", 0)
        served: Counter[str] = Counter()
        while self.events:
            now, _, what, which = heapq.heappop(self.events)
            if now > seconds:
                break
            match what:
                case "arrive":
                    request = next(self.numbers)
                    self.prefix[request] = self.random.choices(range(PREFIXES), cum_weights=self.weights)[0]
                    self.output[request] = max(1, round(self.random.expovariate(1 / OUTPUT)))
                    self.asked[request] = now
                    served[self.place(request, now)] += 1
                    self.after(now + self.random.expovariate(rate), "arrive", 0)
                case "finish" if isinstance(which, int) and which in self.at:
                    self.finish(which, now)
                case "look":
                    self.loads = {id: Load(len(e.running), len(e.queue)) for id, e in self.engines.items()}
                    self.after(now + 1.0, "look", 0)
                case "lose":
                    self.lose(self.random.choice(list(self.engines)), now)
                    self.after(now + LOST_EVERY, "lose", 0)
                case "replace":
                    self.engines[str(which)] = Engine()
                    self.up[str(which)] = now
                    self.pool = self._pool()
        counts = sorted(served[id] for id in self.nodes)
        self.result.spread = (counts[-1] - counts[0]) / (sum(counts) / len(counts))
        self.result.decision_us = self.spent / self.decisions * 1e6
        return self.result

    def place(self, request: int, now: float) -> str:
        tokens = SHARED + OWN + self.output[request]
        wanted = Wanted(tokens=tokens, tenant="t", prompt=msgspec.Raw(b'"prefix %d"' % self.prefix[request]))
        began = time.perf_counter()
        offer = strategy.offer(self.pool, wanted, Known(self.loads, self.up, now), request, self.random)
        id = picking.pick(offer, self.live, self.pending, self.random.random())
        self.spent += time.perf_counter() - began
        self.decisions += 1
        assert id is not None
        self.at[request] = id
        self.live[id] += 1
        self.pending[id] += tokens
        engine = self.engines[id]
        if len(engine.running) < SLOTS:
            self.start(request, id, now)
        else:
            engine.queue.append(request)
        return id

    def start(self, request: int, id: str, now: float) -> None:
        engine = self.engines[id]
        engine.running.add(request)
        self.result.queued.append(now - self.asked[request])
        hit = engine.cached(self.prefix[request])
        self.result.hits += SHARED * hit
        self.result.tokens += SHARED + OWN
        work = (OWN if hit else SHARED + OWN) * PREFILL + self.output[request] * DECODE
        self.after(now + work, "finish", request)

    def leave(self, request: int) -> str:
        id = self.at.pop(request)
        self.live[id] -= 1
        self.pending[id] -= SHARED + OWN + self.output[request]
        return id

    def finish(self, request: int, now: float) -> None:
        id = self.leave(request)
        engine = self.engines[id]
        engine.running.discard(request)
        for of in (self.prefix, self.output, self.asked):
            del of[request]
        if engine.queue:
            self.start(engine.queue.popleft(), id, now)

    def lose(self, id: str, now: float) -> None:
        """What was on it is asked for again, elsewhere, under another number: the old one's end must not count."""
        engine = self.engines.pop(id)
        self.pool = self._pool()
        self.after(now + AWAY, "replace", id)
        for request in [*engine.running, *engine.queue]:
            self.leave(request)
            anew = next(self.numbers)
            for of in (self.prefix, self.output):
                of[anew] = of.pop(request)
            self.asked[anew] = self.asked.pop(request) if request in engine.queue else now
            self.place(anew, now)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nodes", type=int, default=200)
    arguments.add_argument("--seconds", type=float, default=90)
    asked = arguments.parse_args()
    shown: tuple[Strategy, ...] = ("round_robin", "least_loaded", "prefix_affinity")
    found = {how: Fleet(asked.nodes, how, seed=1).run(asked.seconds) for how in shown}
    base = found["round_robin"]
    out = sys.stdout.write
    out(f"{asked.nodes} nodes, {asked.seconds:g} s, a node lost each {LOST_EVERY:g} s, utilisation {UTILISATION:g}\n")
    out(f"{'strategy':16} {'requests':>9} {'p99 queue':>10} {'of r.r.':>8} {'cache hits':>11} {'decision':>9}\n")
    for how, result in found.items():
        ratio = result.p99() / base.p99() if base.p99() else float("nan")
        out(
            f"{how:16} {len(result.queued):9} {result.p99():8.3f} s {ratio:8.2f} {result.hits / result.tokens:10.1%}"
            f" {result.decision_us:6.0f} us\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
