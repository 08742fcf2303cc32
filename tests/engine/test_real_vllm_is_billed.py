"""The main promise against a real vLLM: the ledger's tokens equal the engine's own counters.

`VLLM_URL` names a running server without other traffic; else the one in `ENGINE_HOME` is served (see the Makefile).
"""

import os
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from engine.vllm import serving
from integration.shop import Shop, until
from openai import APIError, AsyncOpenAI

MESSAGES: Any = [{"role": "user", "content": "Hello, world! What is in the paper?"}]
pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine")]


class Counters:
    """Prompt and generated tokens as the engine has counted them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = (0, 0)

    async def read(self) -> tuple[int, int]:
        async with aiohttp.ClientSession() as session, session.get(f"{self._url}/metrics") as response:
            text = await response.text()
        prompt, generated = (
            sum(float(value) for value in re.findall(rf"^vllm:{name}_tokens_total{{.*}} (\S+)$", text, re.MULTILINE))
            for name in ("prompt", "generation")
        )
        return int(prompt), int(generated)

    async def running(self) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{self._url}/metrics") as response:
            text = await response.text()
        return int(sum(map(float, re.findall(r"^vllm:num_requests_running{.*} (\S+)$", text, re.MULTILINE))))

    async def __aenter__(self) -> "Counters":
        self._before = await self.read()
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def since(self) -> tuple[int, int]:
        now = await self.read()
        return now[0] - self._before[0], now[1] - self._before[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine_url() -> AsyncIterator[str]:
    if url := os.environ.get("VLLM_URL"):
        yield url.rstrip("/")
        return
    with serving("model") as server:
        await server.healthy()
        yield server.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(make_stack_of_module: Any, engine_url: str) -> AsyncIterator[Shop]:
    async with Shop.of_engine(await make_stack_of_module(simulators=0), engine_url) as shop:
        yield shop


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=120) as client:
        yield client


async def billed(shop: Shop, client: AsyncOpenAI, **asked: Any) -> tuple[Any, Any]:
    """The ledger's row of a request that was left to complete, and the reply's chunks or body."""
    before = len(await shop.rows(0))
    response = await client.chat.completions.with_raw_response.create(model=shop.model, messages=MESSAGES, **asked)
    answer: Any = response.parse()
    if asked.get("stream"):
        answer = [chunk async for chunk in answer]
    rows = await shop.rows(before + 1)
    return next(row for row in rows if str(row["id"]) == response.headers["x-request-id"]), answer


CASES: list[dict[str, Any]] = [
    {"max_tokens": 20},
    {"max_tokens": 20, "stream": True},
    {"max_tokens": 20, "stream": True, "stream_options": {"include_usage": True}},
    {"max_tokens": 20, "stream": True, "stream_options": {"include_usage": False}},
    {"max_tokens": 12, "n": 2, "temperature": 0.8, "stream": True},
    {"max_tokens": 12, "n": 2, "temperature": 0.8},
    {"max_tokens": 30, "logit_bias": {"2": 100}, "stream": True},
    {"max_tokens": 40, "response_format": {"type": "json_object"}, "stream": True},
]


@pytest.mark.parametrize("asked", CASES)
async def test_tokens_equal_the_engines_counters(
    shop: Shop, client: AsyncOpenAI, engine_url: str, asked: dict[str, Any]
) -> None:
    async with Counters(engine_url) as counters:
        row, answer = await billed(shop, client, **asked)
        assert row["outcome"] == "completed"
        assert row["usage_source"] == "engine"

        # the engine counts a prompt once a choice
        expected = (row["input_tokens"] * asked.get("n", 1), row["output_tokens"])
        await until(counters.since, lambda counted: counted == expected)
    if asked.get("stream"):
        shown = [chunk.usage for chunk in answer if chunk.usage]
        wanted = asked.get("stream_options", {}).get("include_usage", False)
        assert [usage.completion_tokens for usage in shown] == ([row["output_tokens"]] if wanted else [])
    else:
        assert answer.usage.completion_tokens == row["output_tokens"]


@pytest.mark.parametrize("seen", [1, 2, 5, 11, 23])
async def test_a_hang_up_frees_the_engine_and_is_billed(
    shop: Shop, client: AsyncOpenAI, engine_url: str, seen: int
) -> None:
    before = len(await shop.rows(0))
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model,
        messages=MESSAGES,
        max_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    )
    stream: Any = response.parse()
    received = 0
    async for chunk in stream:
        received = chunk.usage.completion_tokens
        if received >= seen:
            break
    await stream.close()
    counters = Counters(engine_url)
    await until(counters.running, lambda running: running == 0, deadline=5)
    rows = await shop.rows(before + 1)
    row = next(row for row in rows if str(row["id"]) == response.headers["x-request-id"])
    assert row["outcome"] == "client_disconnected"
    # what was on its way to the client when it hung up is billed too
    assert received <= row["output_tokens"] <= received + 60
    assert row["input_tokens"] > 5


async def test_an_engines_refusal_is_the_clients_400_and_leaves_no_record(shop: Shop, client: AsyncOpenAI) -> None:
    before = len(await shop.rows(0))
    for asked in ({"max_tokens": 10**6}, {"temperature": -3.0}, {"max_tokens": 10**6, "stream": True}):
        with pytest.raises(APIError) as refused:
            await client.chat.completions.create(model=shop.model, messages=MESSAGES, **asked)  # type: ignore[call-overload]
        assert getattr(refused.value, "status_code", None) == 400
    await billed(shop, client, max_tokens=2)

    assert len(await shop.rows(before + 1)) == before + 1


SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"input": "Hello, world!", "instructions": "Be brief.", "max_output_tokens": 20}),
    ("/v1/responses", {"input": [{"role": "user", "content": "Hello"}], "max_output_tokens": 20, "stream": True}),
    ("/v1/messages", {"messages": MESSAGES, "system": "Be brief.", "max_tokens": 20}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 20, "stream": True}),
]


async def post(shop: Shop, path: str, **asked: Any) -> tuple[str, bytes]:
    """The request's id and the whole reply."""
    async with (
        aiohttp.ClientSession(shop.url, headers={"Authorization": f"Bearer {shop.key}"}) as session,
        session.post(path, json={"model": shop.model, **asked}) as response,
    ):
        body = await response.read()
        assert response.status == 200, body
        return response.headers["x-request-id"], body


@pytest.mark.parametrize(("path", "asked"), SHAPES)
async def test_other_shapes_equal_the_engines_counters(
    shop: Shop, engine_url: str, path: str, asked: dict[str, Any]
) -> None:
    before = len(await shop.rows(0))
    async with Counters(engine_url) as counters:
        request_id, _ = await post(shop, path, **asked)
        row = next(row for row in await shop.rows(before + 1) if str(row["id"]) == request_id)
        assert (row["outcome"], row["usage_source"]) == ("completed", "engine")
        await until(counters.since, lambda counted: counted == (row["input_tokens"], row["output_tokens"]))


@pytest.mark.parametrize(("path", "asked"), [one for one in SHAPES if "stream" in one[1]])
@pytest.mark.parametrize("seen", [1, 5, 23])
async def test_a_hang_up_is_counted_by_the_engines_tokenizer(
    shop: Shop, engine_url: str, path: str, asked: dict[str, Any], seen: int
) -> None:
    before = len(await shop.rows(0))
    limit = "max_tokens" if path == "/v1/messages" else "max_output_tokens"
    body = {"model": shop.model, **asked, limit: 1500, "temperature": 0.8}
    async with Counters(engine_url) as counters:
        async with (
            aiohttp.ClientSession(shop.url, headers={"Authorization": f"Bearer {shop.key}"}) as session,
            session.post(path, json=body) as response,
        ):
            events = 0
            async for line in response.content:
                events += line.startswith((b"event: response.output_text.delta", b"event: content_block_delta"))
                if events >= seen:
                    break
        row = next(row for row in await shop.rows(before + 1) if str(row["id"]) == response.headers["x-request-id"])
        await until(counters.running, lambda running: running == 0, deadline=5)
        prompt, generated = await counters.since()
    assert (row["outcome"], row["usage_source"]) == ("client_disconnected", "estimated")
    assert row["input_tokens"] == prompt
    assert seen <= row["output_tokens"] <= generated


async def test_tokenizing_is_not_billed(shop: Shop) -> None:
    before = len(await shop.rows(0))
    _, tokens = await post(shop, "/v1/tokenize", messages=MESSAGES)
    ids = msgspec.json.decode(tokens)["tokens"]
    _, text = await post(shop, "/v1/detokenize", tokens=ids)
    assert "Hello, world!" in msgspec.json.decode(text)["prompt"]
    _, counted = await post(shop, "/v1/messages/count_tokens", messages=MESSAGES)
    assert msgspec.json.decode(counted)["input_tokens"] == len(ids)
    await post(shop, "/v1/chat/completions", messages=MESSAGES, max_tokens=2)
    assert len(await shop.rows(before + 1)) == before + 1


async def test_a_model_that_lacks_an_endpoint_is_the_clients_400(shop: Shop, client: AsyncOpenAI) -> None:
    with pytest.raises(APIError) as refused:
        await client.embeddings.create(model=shop.model, input="Hello")
    assert getattr(refused.value, "status_code", None) == 400
