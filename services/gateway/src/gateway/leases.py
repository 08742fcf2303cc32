"""The gateway's side of `common.leases`: calls to Redis, those of one loop tick in few pipelines.

The redis driver is imported here only. Redis may be slow or gone: each call has a budget, and after a failure none is
tried for a while, so that a paused Redis does not pause requests.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from prometheus_client import Counter, Histogram
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.errors import Unavailable
from common.leases import Layer, leases_key

log = logging.getLogger(__name__)
Argument: TypeAlias = str | bytes | int | float

FAILURES = Counter("gateway_redis_failures", "Redis calls that failed or exceeded their budget")
SECONDS = Histogram(
    "gateway_redis_seconds", "Round trip of a pipeline", buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.5)
)
MOST_PIPELINES = 8
MOST_COMMANDS = 64
"""At once; more would block the loop for longer than a token may wait."""
LIMITED = 0.25
"""Seconds for a request with limits or a budget: to keep them is worth waiting for a busy Redis."""
_NONE = -1
_FAILED = (RedisError, TimeoutError, ConnectionError, OSError)


class Hold(msgspec.Struct, frozen=True):
    """Money that a request may spend; amounts are whole micro-dollars."""

    scope: str
    key: str
    """The API key, whose budget is named `key:…`."""
    amount: int
    version: int
    budgets: tuple[tuple[str, int, int], ...]
    """(Name, spent as of `version`, limit)."""


class Ask(msgspec.Struct, frozen=True):
    """What a request asks to be let in with."""

    layers: tuple[Layer, ...] = ()
    tokens: int = 0
    """An estimate of what it will use."""
    hold: Hold | None = None


class Standing(msgspec.Struct, frozen=True):
    """How far the tightest layer is used up."""

    limit: int
    remaining: int
    reset_ms: int
    """Until nothing of it is used."""


class Verdict(msgspec.Struct, frozen=True):
    """As of `cl_admit`."""

    kind: str
    which: str
    number: int
    requests: Standing | None
    tokens: Standing | None


class Leases:
    def __init__(self, redis: "Redis", namespace: str, *, budget: float = 0.05, rest: float = 0.1) -> None:
        """`budget`: seconds that a call may take; after a failure Redis is pinged each `rest` seconds, and nothing else
        is asked until it has answered."""
        self._redis = redis
        self._key = leases_key(namespace)
        self._budget = budget
        self._rest = rest
        self._recovering: asyncio.Task[None] | None = None
        self._waiting: list[tuple[tuple[Argument, ...], asyncio.Future[object]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def take(
        self, id: str, ttl_ms: int, intent: bytes, random: float, nodes: Sequence[tuple[str, int, float]]
    ) -> tuple[str, int] | None:
        """A slot on one of `nodes` (id, capacity, weight) → (node, its live requests); None when all are full."""
        offered = [part for node in nodes for part in node]
        answer = await self._call("cl_take", id, ttl_ms, intent, random, *offered)
        return (_text(answer[0]), int(answer[1])) if isinstance(answer, list) and answer else None

    async def admit(
        self, id: str, ttl_ms: int, intent: bytes, random: float, ask: Ask, nodes: Sequence[tuple[str, int, float]]
    ) -> Verdict:
        """A slot on one of `nodes` and all that `ask` names, or nothing."""
        layers = [part for layer in ask.layers for part in msgspec.structs.astuple(layer)]
        hold = ask.hold or Hold("", "", 0, 0, ())
        budgets = [part for budget in hold.budgets for part in budget]
        money = (hold.scope, hold.key, hold.amount, hold.version, len(hold.budgets), *budgets)
        offered = [part for node in nodes for part in node]
        answer = await self._call(
            *("cl_admit", id, ttl_ms, intent, random, ask.tokens, len(ask.layers), *layers, *money, *offered),
            budget=LIMITED,
        )
        assert isinstance(answer, list)
        kind, which, number, *standing = answer
        return Verdict(_text(kind), _text(which), int(number), _standing(standing[:3]), _standing(standing[3:]))

    async def renew(self, ttl_ms: int, progress: Sequence[tuple[str, bytes]]) -> list[str]:
        """Extend the leases of these requests; answers those that have none."""
        answer = await self._call("cl_renew", ttl_ms, *[part for one in progress for part in one], patient=True)
        return [_text(id) for id in answer] if isinstance(answer, list) else []

    async def claim(self, id: str, ttl_ms: int, intent: bytes, node: str, progress: bytes) -> None:
        """Write a lease that Redis does not have (it lost its data, or was away when the request began)."""
        await self._call("cl_assert", id, ttl_ms, intent, node, progress, patient=True)

    async def give_back(self, id: str) -> None:
        await self._call("cl_return", id, patient=True)

    async def end(self, id: str, tokens: int, cost: int) -> None:
        """Give the slot back; `tokens` and `cost`, in micro-dollars, are what the request has used."""
        await self._call("cl_end", id, tokens, cost, patient=True)

    async def unrecorded(self, scope: str) -> tuple[int, list[str]]:
        """(Version that Redis knows, requests that hold or have spent money and are not known to be recorded)."""
        answer = await self._call("cl_unrecorded", scope, patient=True)
        assert isinstance(answer, list)
        return int(answer[0]), [_text(id) for id in answer[1]]

    async def record(self, scope: str, version: int, spent: Sequence[tuple[str, int]], ids: Sequence[str]) -> None:
        """Micro-dollars by budget, which include what `ids` have cost."""
        sums = [part for one in spent for part in one]
        await self._call("cl_record", scope, version, len(spent), *sums, *ids, patient=True)

    async def held(self, scopes: Sequence[str]) -> list[tuple[int, int]]:
        """(Held, spent and not recorded) of each scope, in micro-dollars."""
        answer = await self._call("cl_held", *scopes, patient=True) if scopes else []
        assert isinstance(answer, list)
        return [(int(held), int(spent)) for held, spent in answer]

    async def _call(
        self, function: str, *arguments: Argument, patient: bool = False, budget: float | None = None
    ) -> object:
        """Raises Unavailable. `patient` calls have no client waiting for them: a second instead of the budget."""
        loop = asyncio.get_running_loop()
        if self._recovering is not None:
            raise Unavailable("redis has not answered since a failure")
        future: asyncio.Future[object] = loop.create_future()
        self._waiting.append((("FCALL", function, 1, self._key, *arguments), future))
        if len(self._waiting) == 1:
            loop.call_soon(self._flush)
        try:
            return await self._answer(future, 1.0 if patient else budget or self._budget)
        except _FAILED as error:
            FAILURES.inc()
            if self._recovering is None:
                log.warning("redis: %s failed, nothing is asked until it answers: %r", function, error)
                self._recovering = loop.create_task(self._recover())
            raise Unavailable(f"redis: {error!r}") from error

    async def _recover(self) -> None:
        """No request pays for finding out whether Redis is back."""
        while True:
            await asyncio.sleep(self._rest)
            try:
                async with asyncio.timeout(1):
                    await self._redis.ping()
            except _FAILED:
                continue
            self._recovering = None
            return

    async def _answer(self, future: asyncio.Future[object], budget: float) -> object:
        """Raises TimeoutError, or what Redis answered with."""
        loop = asyncio.get_running_loop()
        for _ in range(2):
            asked = loop.time()
            await asyncio.wait((future,), timeout=budget)
            if future.done():
                return future.result()
            if loop.time() - asked < budget * 1.5:
                break
            # we were late ourselves: what Redis has said by now is not read yet
        raise TimeoutError(f"no answer within {budget:g} s")

    def _flush(self) -> None:
        while self._waiting and len(self._sending) < MOST_PIPELINES:
            batch, self._waiting = self._waiting[:MOST_COMMANDS], self._waiting[MOST_COMMANDS:]
            task = asyncio.get_running_loop().create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._flush()

    async def _send(self, batch: list[tuple[tuple[Argument, ...], asyncio.Future[object]]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for command, _ in batch:
            pipeline.execute_command(*command)
        answers: list[object]
        try:
            with SECONDS.time():
                answers = await pipeline.execute(raise_on_error=False)
        except _FAILED as error:
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
                future.exception()  # whoever asked may not wait for it any more
            else:
                future.set_result(answer)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _standing(values: list[int]) -> Standing | None:
    return None if values[0] == _NONE else Standing(*values)
