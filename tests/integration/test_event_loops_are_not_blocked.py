"""Under load no service's event loop is blocked for more than 50 ms: a stream's next token would wait for it."""

import asyncio
import re
from typing import Any

import aiohttp
from integration.shop import Shop
from openai import AsyncOpenAI

import simulator

MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a river. " * 50}]
SERVICES = ("gateway", "scheduler", "billing", "provisioner")


async def test_two_hundred_streams_and_whole_answers_beside_them(make_stack: Any) -> None:
    stack = await make_stack(simulators=0)
    async with Shop.open(stack, simulator.Config(token_ms=20, prefill_ms=5)) as shop:
        before = {name: await blocked(stack, name) for name in SERVICES}
        async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60) as client:

            async def stream() -> None:
                answer: Any = await client.chat.completions.create(
                    model=shop.model, messages=MESSAGES, max_tokens=50, stream=True
                )
                async for _ in answer:
                    pass

            async def whole() -> None:
                for _ in range(10):
                    await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=3)

            await asyncio.gather(*[stream() for _ in range(200)], *[whole() for _ in range(10)])
        await shop.rows(300)
        for name in SERVICES:
            over, looks = await blocked(stack, name)
            assert looks > before[name][1], f"{name} does not watch its loop"
            assert over == before[name][0], f"{name}: blocked {over - before[name][0]} times, see {stack.log(name)}"


async def blocked(stack: Any, name: str) -> tuple[int, int]:
    """How often the loop was blocked for more than 50 ms, of how many looks."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.metrics_url(name)}/metrics") as response:
        text = await response.text()
    metric = "crosslogic_event_loop_blocked_seconds"
    (within,) = re.findall(rf'^{metric}_bucket{{le="0.05"}} (\S+)$', text, re.MULTILINE)
    (looks,) = re.findall(rf"^{metric}_count (\S+)$", text, re.MULTILINE)
    return int(float(looks)) - int(float(within)), int(float(looks))
