"""Every token that a client received is billed once, however its request was made and however it ended."""

import asyncio
import time
import uuid
from typing import Any

import aiohttp
import asyncpg
import pytest
from integration.shop import Shop, cost, until
from openai import APIError, AsyncOpenAI

import simulator

MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a river, please."}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}},
}


async def billed_like(shop: Shop, request_id: str, rows: list[asyncpg.Record]) -> asyncpg.Record:
    """The ledger's row of a request, after comparing it with what the engine knows."""
    (row,) = [row for row in rows if str(row["id"]) == request_id]
    truth = await shop.engine.ended(request_id)
    assert (row["input_tokens"], row["output_tokens"]) == (truth.prompt_tokens, truth.output_tokens_delivered)
    if row["usage_source"] == "engine":
        assert row["cached_tokens"] == truth.cached_tokens
    assert int(row["cost_picousd"]) == cost(row)
    assert row["node_id"] == shop.nodes[0]
    return row


@pytest.mark.parametrize("options", [None, {"include_usage": True}, {"include_usage": False}])
@pytest.mark.parametrize("extra", [{}, {"n": 2, "temperature": 0.7}, {"tools": [TOOL], "tool_choice": "required"}])
async def test_a_streamed_chat(shop: Shop, client: AsyncOpenAI, options: Any, extra: Any) -> None:
    asked = {} if options is None else {"stream_options": options}
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model, messages=MESSAGES, max_tokens=12, stream=True, **asked, **extra
    )
    chunks = [chunk async for chunk in response.parse()]
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    row = await billed_like(shop, response.headers["x-request-id"], await shop.rows(1))
    assert (row["outcome"], row["usage_source"], row["streamed"]) == ("completed", "engine", True)
    if options and options["include_usage"]:
        assert [chunk.choices for chunk in with_usage] == [[]]
        assert with_usage[0].usage.completion_tokens == row["output_tokens"]
    else:
        assert with_usage == []
        assert all(chunk.choices for chunk in chunks)


@pytest.mark.parametrize("extra", [{}, {"n": 2, "temperature": 0.7}, {"tools": [TOOL], "tool_choice": "required"}])
async def test_a_whole_chat(shop: Shop, client: AsyncOpenAI, extra: Any) -> None:
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model, messages=MESSAGES, max_tokens=9, **extra
    )
    usage = response.parse().usage
    row = await billed_like(shop, response.headers["x-request-id"], await shop.rows(1))
    assert (row["outcome"], row["streamed"]) == ("completed", False)
    assert (usage.prompt_tokens, usage.completion_tokens) == (row["input_tokens"], row["output_tokens"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["One river", ["One river", "Two bridges over it"], [5, 6, 7]])
async def test_completions(shop: Shop, client: AsyncOpenAI, stream: bool, prompt: Any) -> None:
    response = await client.completions.with_raw_response.create(
        model=shop.model, prompt=prompt, max_tokens=7, stream=stream
    )
    parsed: Any = response.parse()
    if stream:
        assert [chunk.usage async for chunk in parsed if chunk.usage] == []
    row = await billed_like(shop, response.headers["x-request-id"], await shop.rows(1))
    assert (row["outcome"], row["endpoint"]) == ("completed", "completions")


async def test_cached_tokens_cost_the_cached_price_only(shop: Shop, client: AsyncOpenAI) -> None:
    long: Any = [{"role": "user", "content": "the river and the bridge and the garden " * 20}]
    for _ in range(2):
        await client.chat.completions.create(model=shop.model, messages=long, max_tokens=2)
    first, second = await shop.rows(2)
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] > 100
    assert (int(first["cost_picousd"]), int(second["cost_picousd"])) == (cost(first), cost(second))
    assert second["cost_picousd"] < first["cost_picousd"]


@pytest.mark.parametrize("seen", [1, 2, 3, 5, 8, 13, 21])
@pytest.mark.parametrize("n", [1, 2])
async def test_a_client_that_hangs_up_pays_for_what_it_received(
    shop: Shop, client: AsyncOpenAI, seen: int, n: int
) -> None:
    # the engine stops there, so that what was delivered is certain
    shop.engine.faults.arm(simulator.Fault(fault="stall", after_tokens=seen, times=1))
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model, messages=MESSAGES, max_tokens=50, stream=True, n=n, temperature=0.7,
        extra_body={"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    )  # fmt: skip
    stream = response.parse()
    counted: dict[int, int] = {}
    async for chunk in stream:
        counted[chunk.choices[0].index] = chunk.usage.completion_tokens
        if len(counted) == n and sum(counted.values()) >= seen:
            break
    await stream.close()
    row = await billed_like(shop, response.headers["x-request-id"], await shop.rows(1))
    assert (row["outcome"], row["usage_source"]) == ("client_disconnected", "continuous")
    assert row["output_tokens"] == sum(counted.values())


async def running(shop: Shop) -> int:
    """Requests in the engine, as it tells itself."""
    async with aiohttp.ClientSession(shop.engine.url) as http, http.get("/metrics") as response:
        (line,) = [x for x in (await response.text()).splitlines() if x.startswith("vllm:num_requests_running{")]
    return int(float(line.rpartition(" ")[2]))


async def test_a_token_is_passed_on_before_the_next_one_is_made_and_a_hang_up_frees_the_engine(
    shop: Shop, client: AsyncOpenAI
) -> None:
    shop.engine.faults.arm(simulator.Fault(fault="stall", after_tokens=7, times=1))
    stream = await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=50, stream=True)
    async with asyncio.timeout(5):  # less than silence may last: nothing but the tokens themselves can come
        for _ in range(8):  # the first event holds no token
            await anext(stream)
    assert await running(shop) == 1
    began = time.monotonic()
    await stream.close()
    await until(lambda: running(shop), lambda left: left == 0)
    assert time.monotonic() - began < 1
    (row,) = await shop.rows(1)
    assert (row["outcome"], row["output_tokens"]) == ("client_disconnected", 7)


async def test_a_client_that_hangs_up_before_the_first_token_pays_for_its_prompt(shop: Shop) -> None:
    shop.engine.faults.arm(simulator.Fault(fault="slow_prefill", seconds=30, times=2))
    for stream in (True, False):
        with pytest.raises(APIError):
            async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=0.5) as client:
                await client.chat.completions.create(model=shop.model, messages=MESSAGES, stream=stream)
    for row in await shop.rows(2):
        await billed_like(shop, str(row["id"]), [row])
        assert (row["outcome"], row["usage_source"], row["output_tokens"]) == ("client_disconnected", "estimated", 0)
        assert row["input_tokens"] > 5


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [("truncate", "upstream_lost"), ("reset", "upstream_lost"), ("error", "upstream_lost"), ("error400", "refused")],
)
async def test_an_engine_that_fails_midway_is_told_in_the_stream(
    shop: Shop, client: AsyncOpenAI, fault: str, outcome: str
) -> None:
    shop.engine.faults.arm(simulator.Fault(fault=fault, after_tokens=6, times=1))
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model, messages=MESSAGES, max_tokens=50, stream=True
    )
    with pytest.raises(APIError):
        [chunk async for chunk in response.parse()]
    row = await billed_like(shop, response.headers["x-request-id"], await shop.rows(1))
    assert (row["outcome"], row["output_tokens"]) == (outcome, 6)


@pytest.mark.parametrize("fault", ["split", "coalesce", "multi_token"])
async def test_how_the_engine_cuts_its_bytes_changes_nothing(shop: Shop, client: AsyncOpenAI, fault: str) -> None:
    async def text() -> tuple[str, str]:
        response = await client.chat.completions.with_raw_response.create(
            model=shop.model, messages=MESSAGES, max_tokens=40, stream=True, temperature=0
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in response.parse()]
        return "".join(parts), response.headers["x-request-id"]

    plain, _ = await text()
    shop.engine.faults.arm(simulator.Fault(fault=fault, size=3, times=1))
    cut, request_id = await text()
    assert cut == plain
    row = await billed_like(shop, request_id, await shop.rows(2))
    assert row["output_tokens"] == 40


async def test_a_request_tried_on_two_nodes_is_one_record(stack: Any) -> None:
    async with Shop.open(stack, simulator.Config(token_ms=1, prefill_ms=1), engines=2) as shop:
        victim = shop.engine
        victim.faults.arm(simulator.Fault(fault="http500", times=1))
        asked = 0
        async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0) as client:
            while victim.faults.faults:  # until it was chosen
                await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=3, stream=False)
                asked += 1
        rows = await shop.rows(asked)
        assert [row["output_tokens"] for row in rows] == [3] * asked
        assert sorted(row["attempts"] for row in rows) == [1] * (asked - 1) + [2]


async def test_every_view_shows_the_ledgers_sum(shop: Shop, client: AsyncOpenAI) -> None:
    for _ in range(3):
        await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=5)
    rows = await shop.rows(3)
    usage = await shop.admin("GET", f"/admin/usage?tenant_id={shop.tenant_id}&group_by=model,day")
    pico = sum(int(row["cost_picousd"]) for row in rows)
    assert usage["total"]["output_tokens"] == sum(row["output_tokens"] for row in rows) == 15
    assert usage["total"]["requests"] == 3
    assert int(usage["total"]["cost_usd"].replace(".", "").ljust(13, "0")[:13]) == pico
    records = await shop.admin("GET", f"/admin/usage/records?tenant_id={shop.tenant_id}")
    assert {record["id"] for record in records["records"]} == {str(row["id"]) for row in rows}
    assert all(uuid.UUID(record["id"]).version == 7 for record in records["records"])
