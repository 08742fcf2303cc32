"""Two real vLLM servers of one model: a stream that loses one of them reads, at temperature 0, as if it had not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from engine.cutter import Cutter, cutting
from engine.vllm import Server, serving
from integration.shop import Shop, cost
from openai import AsyncOpenAI

MESSAGES: Any = [{"role": "user", "content": "Hello, world!"}]
LENGTH = 40
# a model whose greedy text never settles, so that a wrong continuation shows
MODEL = "model-unsettled"
pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine")]


class Pair:
    def __init__(self, shop: Shop, servers: list[Server], cutters: list[Cutter]) -> None:
        self.shop, self.servers, self.cutters = shop, servers, cutters


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(make_stack_of_module: Any) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as running:
        servers = [running.enter_context(serving(MODEL)) for _ in range(2)]
        await asyncio.gather(*[server.healthy() for server in servers])
        cutters = [await running.enter_async_context(cutting(server.url)) for server in servers]
        stack = await make_stack_of_module(simulators=0)
        shop = await running.enter_async_context(Shop.of_engine(stack, *[cutter.url for cutter in cutters]))
        yield Pair(shop, servers, cutters)


async def read(client: AsyncOpenAI, shop: Shop, begun: asyncio.Barrier | None = None) -> tuple[str, str, Any]:
    """Text, request id, usage. `begun` is reached after the third chunk."""
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model, messages=MESSAGES, max_tokens=LENGTH, temperature=0, stream=True,
        stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
    )  # fmt: skip
    text, usage, chunks = "", None, 0
    async for chunk in response.parse():
        chunks += 1
        if chunks == 3 and begun is not None:
            await begun.wait()
        usage = chunk.usage or usage
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return text, response.headers["x-request-id"], usage


@pytest.mark.asyncio(loop_scope="module")
async def test_cut_after_any_event_the_text_is_the_same(pair: Pair) -> None:
    shop = pair.shop
    async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=120) as client:
        expected, *_ = await read(client, shop)
        asked = 1
        for after in range(2, LENGTH):
            for cutter in pair.cutters:
                cutter.cut_after = None
            victim = pair.cutters[after % 2]
            victim.cut_after = after
            while victim.cut_after is not None:  # until the victim was chosen
                text, request_id, usage = await read(client, shop)
                asked += 1
                assert text == expected, after
                assert usage.completion_tokens == LENGTH
                assert asked < 20 * LENGTH
            (row,) = [row for row in await shop.rows(asked) if str(row["id"]) == request_id]
            assert (row["outcome"], row["output_tokens"]) == ("completed", LENGTH)
            assert row["input_tokens"] == usage.prompt_tokens
            assert int(row["cost_picousd"]) == cost(row)
        assert len(await shop.rows(asked)) == asked


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_is_killed_in_the_middle(pair: Pair) -> None:
    shop = pair.shop
    async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=120) as client:
        expected, *_ = await read(client, shop)
        before = len(await shop.rows(0))
        begun = asyncio.Barrier(13)
        streams = [asyncio.create_task(read(client, shop, begun)) for _ in range(12)]
        await begun.wait()
        pair.servers[0].kill()
        answers = await asyncio.gather(*streams)
        assert [text for text, *_ in answers] == [expected] * 12
        rows = await shop.rows(before + 12)
        ours = [row for row in rows if str(row["id"]) in {request_id for _, request_id, _ in answers}]
        assert [(row["outcome"], row["output_tokens"]) for row in ours] == [("completed", LENGTH)] * 12
