"""A gateway that is told to stop finishes its streams, settles them, and exits; the other one takes what comes."""

import asyncio
import signal
from typing import Any

import aiohttp
from integration.shop import Shop, until
from openai import AsyncOpenAI

import simulator

MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a river."}]
STREAMS = 40
TOKENS = 60


async def test_a_rolling_restart_under_load(make_stack: Any) -> None:
    stack = await make_stack(gateways=2, simulators=0)
    async with Shop.open(stack, simulator.Config(token_ms=25, prefill_ms=5)) as shop:
        flowing = asyncio.Barrier(STREAMS + 1)

        async def one() -> int:
            # a connection of its own, so that both gateways have some
            async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60) as client:
                answer: Any = await client.chat.completions.create(
                    model=shop.model, messages=MESSAGES, max_tokens=TOKENS, stream=True,
                    stream_options={"include_usage": True},
                )  # fmt: skip
                chunks, tokens = 0, 0
                async for chunk in answer:
                    chunks += 1
                    if chunks == 2:
                        await flowing.wait()
                    tokens = chunk.usage.completion_tokens if chunk.usage else tokens
                return tokens

        streams = [asyncio.create_task(one()) for _ in range(STREAMS)]
        await flowing.wait()
        live = [await requests(stack, index) for index in range(2)]
        assert sum(live) == STREAMS
        old = stack.pids("gateway")
        await stack.kill("gateway", 0, signal.SIGTERM)
        # while the one drains, new requests are answered: by the other, since the one has closed its door
        fresh = [asyncio.create_task(whole(shop)) for _ in range(20)]
        assert await asyncio.gather(*fresh) == [200] * 20
        assert await asyncio.gather(*streams) == [TOKENS] * STREAMS
        rows = await shop.rows(STREAMS + 20)
        assert [row["outcome"] for row in rows] == ["completed"] * (STREAMS + 20)

        async def replaced() -> list[int]:
            return list(stack.pids("gateway"))

        await until(replaced, lambda pids: len(pids) == 2 and old[0] not in pids)


async def whole(shop: Shop) -> int:
    status, _ = await shop.call(
        "POST", "/v1/chat/completions", {"model": shop.model, "messages": MESSAGES, "max_tokens": 2}
    )
    return status


async def requests(stack: Any, index: int) -> int:
    """In progress on one gateway."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.metrics_url('gateway', index)}/metrics") as got:
        text = await got.text()
    return int(float(next(line for line in text.splitlines() if line.startswith("gateway_live_requests ")).split()[1]))
