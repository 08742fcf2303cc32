"""A request cancelled at any of its awaits is settled exactly once, and leaves nothing in Redis."""

import asyncio
import random
import time
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import redis.asyncio

import simulator
from common import bus, ids
from common.breaker import Policy
from common.errors import ApiError
from common.leases import Layer, leases_key
from common.redis import Redis
from common.routing import Model, Node, Snapshot
from gateway.admission import Admission
from gateway.body import prepare
from gateway.budget import Budgets
from gateway.client import Client, Request
from gateway.ejection import Ejection
from gateway.inference import Inference
from gateway.leases import Leases
from gateway.live import Caller
from gateway.nodes import Nodes
from gateway.observed import Observed
from gateway.outcomes import Outcomes
from gateway.placement import Placement
from gateway.prices import Prices
from gateway.queue import Queue
from gateway.reply import Reply
from gateway.settlement import Settlement
from gateway.spool import Spool
from gateway.tokenizer import Tokenizer
from gateway.upstream import Timeouts, Upstream
from gateway.waiter import Rules

FUNCTIONS = Path(__file__).parents[2] / "scheduler/src/scheduler/functions"
MESSAGES = [{"role": "user", "content": "Tell me of a river."}]


class Paper:
    """What a reply is written on, in place of a client's socket."""

    def __init__(self) -> None:
        self.written = b""
        self.stalled_since = None
        self.paused_by = None
        self.replying = Request("POST", b"/", [], keep_alive=True)

    def head(self, status: int, headers: Any, length: int | None) -> bytes:
        return b"%d " % status

    def write(self, data: bytes) -> None:
        self.written += data

    async def drained(self) -> None:
        return


class Gateway:
    def __init__(
        self, inference: Inference, settlement: Settlement, nats: bus.Bus, redis: "redis.asyncio.Redis", key: str
    ) -> None:
        self.inference, self.settlement, self.nats, self.redis, self.key = inference, settlement, nats, redis, key

    async def records(self, tenant: str) -> list[dict[str, Any]]:
        info = await self.nats.js.stream_info("USAGE")
        found = []
        for sequence in range(info.state.first_seq or 1, info.state.last_seq + 1):
            message = await self.nats.js.get_msg("USAGE", seq=sequence)
            if message.subject == f"usage.recorded.v1.{tenant}":
                found.append(msgspec.json.decode(message.data or b""))
        return found

    async def leases(self) -> int:
        return int(await self.redis.zcard(self.key))


@pytest.fixture
async def gateway(
    nats_url: str, redis_url: str, redis_namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[Gateway, simulator.Simulator]]:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(bus.connect(nats_url, "test"))
        admin = redis.asyncio.Redis.from_url(redis_url)
        stack.push_async_callback(admin.aclose)
        await admin.function_load("\n".join(file.read_text() for file in sorted(FUNCTIONS.iterdir())), replace=True)
        config = simulator.Config(models=("m",), token_ms=1, prefill_ms=1)
        engine = await stack.enter_async_context(simulator.serve(config))
        nodes = Nodes()
        nodes.replace(Snapshot(1, (Node(id="n", endpoint=engine.url, state="ready", models=(Model("m", 8192),)),)))
        pipe = Redis(redis_url, "test")
        stack.callback(pipe.close)
        leases = Leases(pipe, pipe, redis_namespace, budget=5)
        upstream = Upstream(Timeouts(2, 5, 5, 60))
        stack.callback(upstream.close)
        spool = Spool(tmp_path)
        stack.callback(spool.rotate)
        settlement = Settlement(nats, spool, leases, Observed(), 60_000, 60_000)
        admission = Admission(nodes, Prices(), Budgets(leases, nats), Layer("global:", None, None, None), 4096)
        ejection = Ejection(Policy(), time.monotonic, random.random)
        placement = Placement(nodes, ejection, leases, 60_000, 60)
        queue = Queue(nodes, ejection, leases, leases, placement.live, 60_000, Rules(0, 0, 1, 1, 1), ids.new_id())
        inference = Inference(
            Outcomes(nats, ejection),
            admission,
            placement,
            upstream,
            settlement,
            Tokenizer(nodes, upstream),
            3,
            True,
            queue,
        )
        yield Gateway(inference, settlement, nats, admin, leases_key(redis_namespace)), engine


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, None], at: int) -> Generator[Any, Any, int]:
    """Run `work`, throwing CancelledError into its await number `at`; answers how many awaits there were."""
    awaits, answer = 0, None
    try:
        while True:
            if awaits == at:
                awaits += 1
                waited = work.throw(asyncio.CancelledError())
            else:
                waited = work.send(answer)
                awaits += 1
            if awaits == at:
                if hasattr(waited, "_asyncio_future_blocking"):
                    waited._asyncio_future_blocking = False
                continue
            answer = yield waited
    except (StopIteration, asyncio.CancelledError):
        return awaits


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [None, "http500", "error"])
async def test_one_record_wherever_it_is_cancelled(
    gateway: tuple[Gateway, simulator.Simulator], stream: bool, fault: str | None
) -> None:
    desk, engine = gateway
    body = msgspec.json.encode({"model": "m", "messages": MESSAGES, "max_tokens": 3, "stream": stream})
    at, awaits = 1, 10**9
    while at <= awaits:
        tenant = ids.new_id()
        caller = Caller(api_key_id=ids.new_id(), tenant_id=tenant, environment_id=ids.new_id())
        paper = Paper()
        reply = Reply(cast(Client, paper), "r")
        if fault:
            engine.faults.clear()
            engine.faults.arm(simulator.Fault(fault=fault, after_tokens=2, times=1))
        id = ids.new_id()
        work = desk.inference.answer(id, caller, "chat.completions", prepare(body, "chat.completions"), reply)
        try:
            awaits = await cancelled_at(work, at)
        except ApiError:
            awaits = at  # the request had ended by itself
        assert await desk.settlement.drained(10)
        records = await desk.records(str(tenant))
        assert len(records) <= 1, (at, records)
        received = paper.written.count(b'"content":"') - paper.written.count(b'"content":""')
        if received > 0:
            (record,) = records
            assert record["id"] == str(id)
            assert record["output_tokens"] >= min(received, 3), (at, record)
        for record in records:
            assert record["outcome"] in ("completed", "client_disconnected", "upstream_lost")
        assert await desk.leases() == 0, at
        at += 1
    assert at > 5
