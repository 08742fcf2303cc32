"""An engine that hangs is given up after a deadline: never shown as a clean end, and what came is billed."""

from typing import Any

import pytest
import pytest_asyncio
from integration.shop import Shop
from openai import APIError, AsyncOpenAI, InternalServerError

import simulator

MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a river."}]
DEADLINES = {
    "GATEWAY_IDLE_TIMEOUT": "1",
    "GATEWAY_FIRST_BYTE_TIMEOUT": "1.5",
    "GATEWAY_TOTAL_TIMEOUT": "4",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(make_stack_of_module: Any) -> Any:
    return await make_stack_of_module(simulators=0, service_env=DEADLINES)


async def ask(shop: Shop, **asked: Any) -> int:
    """Chunks until it ended or failed."""
    async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=30) as client:
        answer: Any = await client.chat.completions.create(model=shop.model, messages=MESSAGES, **asked)
        chunks = 0
        if asked.get("stream"):
            async for _ in answer:
                chunks += 1
        return chunks


async def test_silence_between_two_tokens_ends_the_stream_with_an_error(hasty: Any) -> None:
    async with Shop.open(hasty, simulator.Config(token_ms=2, prefill_ms=1)) as shop:
        shop.engine.faults.arm(simulator.Fault(fault="stall", after_tokens=5, times=1))
        with pytest.raises(APIError) as told:
            await ask(shop, stream=True, max_tokens=50)
        assert told.value.code == "upstream_timeout"
        (row,) = await shop.rows(1)
        assert (row["outcome"], row["output_tokens"]) == ("upstream_lost", 5)
        assert shop.engine.engine.running == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_silence_before_the_first_token_is_a_504(hasty: Any, stream: bool) -> None:
    async with Shop.open(hasty, simulator.Config(token_ms=2, prefill_ms=1)) as shop:
        shop.engine.faults.arm(simulator.Fault(fault="slow_prefill", seconds=30, times=1))
        with pytest.raises(InternalServerError) as told:
            await ask(shop, stream=stream, max_tokens=5)
        assert (told.value.status_code, told.value.code) == (504, "upstream_timeout")
        (row,) = await shop.rows(1)
        assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("upstream_lost", 0, 0)
        assert shop.engine.engine.running == 0


async def test_a_stream_without_end_is_ended(hasty: Any) -> None:
    async with Shop.open(hasty, simulator.Config(token_ms=100, prefill_ms=1), engines=2) as shop:
        with pytest.raises(APIError) as told:
            await ask(shop, stream=True, max_tokens=5000)
        assert told.value.code == "upstream_timeout"
        (row,) = await shop.rows(1)
        assert (row["outcome"], row["attempts"]) == ("upstream_lost", 1)
        assert 20 < row["output_tokens"] < 60
