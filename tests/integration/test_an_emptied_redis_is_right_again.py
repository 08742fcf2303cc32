"""A scheduler dies and Redis comes back empty, under load: slots, spread and limits are right again within seconds."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest_asyncio
from integration.crowd import ask, live
from integration.shop import Shop, until
from redis.exceptions import RedisError

import simulator
from stack.stack import Stack

LIMIT = 12
WITHIN = 5.0  # seconds
BODY = {"max_tokens": 8000, "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: Any) -> Stack:
    return await make_stack_of_module(simulators=1, gateways=2, replicas={"scheduler": 2})


async def test_slots_spread_and_limits(stack: Stack) -> None:
    config = simulator.Config(models=(), token_ms=20, prefill_ms=2)
    async with Shop.open(stack, config, engines=2) as shop:
        key = (await shop.admin("POST", "/admin/api-keys", _key(shop)))["key"]
        running = [asyncio.create_task(_endless(shop, key)) for _ in range(LIMIT)]
        try:
            await until(lambda: _known(shop), lambda found: found == LIMIT)
            assert (await ask(shop, key, 1)).status == 429
            await asyncio.gather(stack.kill("scheduler", 0), stack.kill("valkey"))
            await stack.ready("valkey")
            began = time.monotonic()
            await until(lambda: _known(shop), lambda found: found == LIMIT, deadline=2 * WITHIN)
            took = time.monotonic() - began
            assert took < WITHIN, f"{took:.1f} s"
            loads = [
                node["live"] for node in (await shop.admin("GET", "/admin/nodes"))["nodes"] if node["id"] in shop.nodes
            ]
            assert sorted(loads) == [LIMIT // 2, LIMIT // 2]
            reply = await ask(shop, key, 1)
            assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
            assert not any(stream.done() for stream in running), "no stream noticed"
        finally:
            for stream in running:
                stream.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        await until(lambda: _known(shop), lambda found: found == 0)

        async def all_at_once() -> list[int]:
            return sorted(reply.status for reply in await asyncio.gather(*[ask(shop, key, 1) for _ in range(LIMIT)]))

        await until(all_at_once, lambda statuses: statuses == [200] * LIMIT)


def _key(shop: Shop) -> dict[str, object]:
    return {"tenant_id": shop.tenant_id, "name": "k", "max_concurrency": LIMIT}


async def _endless(shop: Shop, key: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{shop.url}/v1/chat/completions", json={"model": shop.model, **BODY}) as response,
    ):
        assert response.status == 200
        async for _ in response.content.iter_any():
            pass


async def _known(shop: Shop) -> int:
    try:
        return await live(shop)
    except RedisError:
        return -1
