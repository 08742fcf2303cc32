"""Requests that wait for a slot: their places are in Redis, this gateway keeps them and hears when their turn comes.

| what happens | what becomes of who waits |
|---|---|
| the client hangs up | its place is given up at once |
| this process dies | Redis forgets its places when their leases' time is over |
| Redis restarts empty | places are taken anew, as of their arrival, once running requests are known there again |
| Redis stays away | slots are counted locally, as for requests that come meanwhile |
| the scheduler dies | nothing: no process is needed for a turn |
"""

import asyncio
import logging
import random
from collections import Counter
from uuid import UUID

from prometheus_client import Counter as Metric
from prometheus_client import Gauge, Histogram

from common.errors import ApiError, NoCapacity, NotFound, Overloaded, Unavailable
from common.leases import line_of
from common.routing import Node
from gateway import limits
from gateway.ejection import Ejection
from gateway.leases import Leases, Turn, Verdict
from gateway.lines import Lines
from gateway.nodes import Nodes
from gateway.waiter import Rules, Waiter

log = logging.getLogger(__name__)

EVERY = 0.3
"""Seconds between two looks, give or take a fifth: what a slot that nobody gave back may cost."""
GRACE = 1.0
"""Seconds without Redis after which slots are counted locally."""
COMING = 30
"""Seconds after which to try a model again that has no node."""
WAITING = Gauge("gateway_waiting_requests", "Requests that wait for a slot")
SECONDS = Histogram(
    "gen_ai_server_time_in_queue_seconds",
    "From arrival to a slot, or to giving up, of those that had to wait",
    ["model", "outcome"],
    buckets=(0.01, 0.04, 0.16, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68),
)
ANEW = Metric("gateway_waiting_anew", "Places taken again because Redis did not know them")


class Queue:
    def __init__(
        self,
        nodes: Nodes,
        ejection: Ejection,
        leases: Leases,
        bell: Leases,
        live: Counter[str],
        ttl_ms: int,
        rules: Rules,
        id: UUID,
    ) -> None:
        """`bell` is a connection that may be blocked; `live` this gateway's own requests by node."""
        self._nodes = nodes
        self._ejection = ejection
        self._leases = leases
        self._bell = bell
        self._live = live
        self._ttl_ms = ttl_ms
        self._rules = rules
        self._channel = str(id)
        self._waiters: dict[str, Waiter] = {}
        self._somebody = asyncio.Event()
        self._away_since: float | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def patience(self, model: str, region: str, asked: float | None) -> float:
        """Seconds that a request waits: as long as the client wants to, and no longer than is right."""
        cold = model in self._nodes.deployed and not self._ready(model, region)
        most = self._rules.cold_seconds if cold else self._rules.seconds
        return most if asked is None else min(asked, most)

    async def wait(self, waiter: Waiter) -> Node:
        """Returns the node with the slot. Raises Overloaded when others use the nodes until the end of its patience,
        too many wait or a limit is reached, and NoCapacity when there is no node until then."""
        node: Node | None = None
        outcome = "left"
        self._waiters[waiter.id] = waiter
        WAITING.inc()
        self._somebody.set()
        try:
            await self._enter(waiter)
            await asyncio.wait((waiter.turn,), timeout=max(0.0, waiter.deadline - _now()))
            if not waiter.turn.done():
                outcome = "expired"
                raise self._in_vain(waiter)
            outcome = "refused"
            node = waiter.turn.result()
            outcome = "served"
        finally:
            del self._waiters[waiter.id]
            WAITING.dec()
            if not self._waiters:
                self._somebody.clear()
            SECONDS.labels(waiter.model, outcome).observe(_now() - waiter.arrived)
            if node is None:
                self._leave(waiter)
        return node

    async def lines(self) -> Lines:
        """Of all gateways. Raises Unavailable without Redis."""
        return await self._leases.lines()

    async def keep(self) -> None:
        """Tell Redis, again and again, who waits and what nodes there are."""
        while True:
            await self._somebody.wait()
            try:
                await self._look()
                self._away_since = None
            except Unavailable:
                self._locally()
            await asyncio.sleep(EVERY * random.uniform(0.8, 1.2))  # noqa: S311  gateways must not look in step

    async def listen(self) -> None:
        """Hear at once whose turn it is."""
        while True:
            await self._somebody.wait()
            try:
                for id in await self._bell.granted(self._channel, 1):
                    if id in self._waiters:
                        await self._ask([id])
            except Unavailable:
                await asyncio.sleep(EVERY)

    async def _look(self) -> None:
        for model, region in {(waiter.model, waiter.region) for waiter in self._waiters.values()}:
            while await self._leases.offer(line_of(model, region), _offer(self._ready(model, region))):
                pass
        await self._ask([waiter.id for waiter in self._waiters.values() if waiter.entered])
        for waiter in list(self._waiters.values()):
            if waiter.again_at is not None and waiter.again_at <= _now():
                await self._enter(waiter)

    async def _ask(self, ids: list[str]) -> None:
        if not ids:
            return
        for id, name in await self._leases.waiting(self._ttl_ms, ids):
            waiter = self._waiters.get(id)
            if waiter is None or waiter.turn.done():
                continue
            if not name:
                # not at once: running requests must be counted first where Redis has lost them too
                ANEW.inc()
                waiter.entered, waiter.again_at = False, _now() + 1.5 * self._rules.renew_seconds
                continue
            self._serve(waiter, name)

    def _serve(self, waiter: Waiter, name: str) -> None:
        found = [node for node in self._ready(waiter.model, waiter.region) if node.id == name]
        if found:
            waiter.turn.set_result(found[0])
        else:  # it went away in this moment: wait on, in the old place
            self._leave(waiter)
            waiter.entered, waiter.again_at = False, _now() + EVERY

    async def _enter(self, waiter: Waiter) -> None:
        """Raises what refuses it; into the turn when somebody else asks."""
        waiter.again_at = None
        turn = Turn(
            line=line_of(waiter.model, waiter.region),
            flow=waiter.flow,
            weight=waiter.weight,
            waited_ms=round((_now() - waiter.arrived) * 1000),
            patience_ms=max(0, round((waiter.deadline - _now()) * 1000)),
            most=self._rules.length,
            most_of_flow=self._rules.length_of_tenant,
            channel=self._channel,
        )
        nodes = _offer(self._ready(waiter.model, waiter.region))
        try:
            verdict = await self._leases.wait(
                waiter.id,
                self._ttl_ms,
                waiter.intent,
                random.random(),  # noqa: S311
                turn,
                waiter.ask,
                nodes,
            )
        except Unavailable:
            waiter.again_at = _now() + EVERY
            return
        waiter.tell(limits.headers(verdict))
        refused = self._refusal(waiter, verdict)
        if refused is not None:
            waiter.refuse(refused)
        elif verdict.kind == "ok":
            self._serve(waiter, verdict.which)
        else:
            waiter.entered, waiter.expected = True, verdict.number / 1000

    def _refusal(self, waiter: Waiter, verdict: Verdict) -> ApiError | None:
        if verdict.kind in ("crowded", "late"):
            seconds = _seconds(verdict.number / 1000)
            why = "too many requests wait" if verdict.kind == "crowded" else "its turn would not come in time"
            text = f"every node of `{waiter.model}` is busy, and {why}; try again in {seconds} s"
            return Overloaded(text, retry_after=seconds)
        return limits.refusal(verdict, waiter.ask)

    def _in_vain(self, waiter: Waiter) -> ApiError:
        model = waiter.model
        if not self._ready(model, waiter.region):
            text = f"no node serves `{model}` at the moment; try again in {COMING} s"
            return NoCapacity(text, retry_after=COMING if model in self._nodes.deployed else 5)
        seconds = _seconds(waiter.expected)
        return Overloaded(f"every node of `{model}` is busy; try again in {seconds} s", retry_after=seconds)

    def _leave(self, waiter: Waiter) -> None:
        """Whatever cancels the request does not cancel this."""
        task = asyncio.get_running_loop().create_task(self._left(waiter.id))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _left(self, id: str) -> None:
        try:
            await self._leases.leave(id)
        except Unavailable:
            return  # Redis forgets it by itself

    def _locally(self) -> None:
        """In the order of arrival, by this gateway's own counts."""
        self._away_since = self._away_since or _now()
        if _now() - self._away_since < GRACE:
            return
        taken: Counter[str] = Counter()
        for waiter in sorted(self._waiters.values(), key=lambda waiter: waiter.arrived):
            count = self._live + taken
            free = [
                node
                for node in self._ready(waiter.model, waiter.region)
                if not node.max_concurrency or count[node.id] < node.max_concurrency
            ]
            if free and not waiter.turn.done():
                best = min(free, key=lambda node: (count[node.id] + 1) / node.weight)
                taken[best.id] += 1
                waiter.turn.set_result(best)

    def _ready(self, model: str, region: str) -> list[Node]:
        try:
            serving = self._nodes.serving(model)
        except NotFound:  # it was there when the request came
            return []
        return self._ejection.trusted(
            [node for node in serving if node.state == "ready" and region in ("", node.region)]
        )


def _offer(nodes: list[Node]) -> list[tuple[str, int, float]]:
    return [(node.id, node.max_concurrency, node.weight) for node in nodes]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _seconds(expected: float) -> int:
    """For `retry-after`."""
    return max(1, min(60, round(expected + 0.5)))
