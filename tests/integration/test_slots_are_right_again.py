"""Whatever is killed under load: soon the slots are those of the requests there are, and these are spread evenly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from integration.shop import Shop, until

import simulator
from stack.stack import Stack

STREAMS = 24
NODES = 3
SOON = 10.0
"""Seconds: five, and what a busy machine needs to start a process."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: Any) -> Stack:
    return await make_stack_of_module(gateways=2, replicas={"scheduler": 2})


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    async with Shop.open(stack, simulator.Config(token_ms=20, prefill_ms=2), engines=NODES) as shop:
        yield shop


@pytest.mark.parametrize(("victim", "index"), [("valkey", 0), ("scheduler", 0), ("scheduler", 1), ("gateway", 1)])
async def test_after_a_kill(shop: Shop, victim: str, index: int) -> None:
    key = await shop.admin(
        "POST", "/admin/api-keys", {"tenant_id": shop.tenant_id, "name": "k", "max_concurrency": STREAMS}
    )
    body = {"model": shop.model, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 100, "stream": True}
    stopping = asyncio.Event()

    async def client() -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key['key']}"}) as http:
            while not stopping.is_set():
                try:
                    async with http.post(f"{shop.url}/v1/chat/completions", json=body) as response:
                        await response.read()
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)  # its gateway is gone

    async def live() -> list[int]:
        nodes = {node["id"]: node["live"] for node in (await shop.admin("GET", "/admin/nodes"))["nodes"]}
        return [nodes[id] if nodes[id] is not None else -1 for id in shop.nodes]

    async def right() -> bool:
        """Slots as engines have requests, all clients served, no node with more than its share and a third."""
        slots, running = await live(), [engine.engine.running for engine in shop.engines]
        apart = sum(abs(a - b) for a, b in zip(slots, running, strict=True))
        # requests begin and end between the two looks
        return apart <= 2 and sum(running) >= STREAMS - 2 and max(running) <= STREAMS / NODES * 4 / 3

    clients = [asyncio.create_task(client()) for _ in range(STREAMS)]
    try:
        await until(right, bool)
        await shop.stack.kill(victim, index)
        await shop.stack.ready(victim, index)
        await until(right, bool, deadline=SOON)
    finally:
        stopping.set()
        await asyncio.gather(*clients)
    await until(live, lambda slots: slots == [0] * NODES, deadline=SOON)
