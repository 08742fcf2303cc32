"""A gateway killed with live streams: each request is settled once, one interval at most is unbilled."""

import asyncio
from typing import Any

from integration.shop import Shop, cost, until
from openai import APIError, AsyncOpenAI

import simulator

MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a river."}]
STREAMS = 50
TOKEN_MS = 50
RENEW_MS = 1000


async def test_fifty_streams_of_a_killed_gateway(make_stack: Any) -> None:
    stack = await make_stack()
    async with Shop.open(stack, simulator.Config(token_ms=TOKEN_MS, prefill_ms=1)) as shop:
        received = dict.fromkeys(range(STREAMS), 0)
        ids: dict[int, str] = {}
        flowing = asyncio.Event()

        # one for all: making fifty would keep this process, and so its engine, from answering health checks
        client = AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60)

        async def one(number: int) -> None:
            response = await client.chat.completions.with_raw_response.create(
                model=shop.model, messages=MESSAGES, max_tokens=2000, stream=True,
                extra_body={"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
            )  # fmt: skip
            ids[number] = response.headers["x-request-id"]
            async for chunk in response.parse():
                received[number] = chunk.usage.completion_tokens
                if min(received.values()) >= 2 * RENEW_MS / TOKEN_MS:
                    flowing.set()

        streams = [asyncio.create_task(one(number)) for number in range(STREAMS)]
        async with asyncio.timeout(60):
            await flowing.wait()
        await stack.kill("gateway")
        await stack.ready("gateway")
        ends = await asyncio.gather(*streams, return_exceptions=True)
        await client.close()
        assert all(isinstance(end, APIError | OSError) or "peer closed" in str(end) for end in ends), ends

        rows = await shop.rows(STREAMS)
        assert {str(row["id"]) for row in rows} == set(ids.values())
        for number, request_id in ids.items():
            (row,) = [row for row in rows if str(row["id"]) == request_id]
            assert row["outcome"] == "gateway_lost"
            assert int(row["cost_picousd"]) == cost(row)
            truth = await shop.engine.ended(request_id)
            assert row["output_tokens"] <= truth.output_tokens_delivered
            unbilled = received[number] - row["output_tokens"]
            # one interval, and what a busy machine delays the renewal by
            assert unbilled <= 2 * RENEW_MS / TOKEN_MS, (unbilled, row)

        async def live() -> int:
            nodes = (await shop.admin("GET", "/admin/nodes"))["nodes"]
            return sum(node["live"] for node in nodes if node["id"] in shop.nodes)

        await until(live, lambda count: count == 0)
        assert len(await shop.rows(STREAMS)) == STREAMS
