"""Whatever endpoint a client uses and however its request ends, the ledger has what the engine delivered, once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from integration.shop import Shop, cost

import simulator
from stack.stack import Stack

TEXT = "Tell me a story about a river, please."
CHAT = [{"role": "user", "content": TEXT}]
GENERATING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": CHAT, "max_tokens": 12},
    "/v1/completions": {"prompt": TEXT, "max_tokens": 12},
    "/v1/responses": {"input": TEXT, "instructions": "Be brief.", "max_output_tokens": 12},
    "/v1/messages": {"messages": CHAT, "system": "Be brief.", "max_tokens": 12},
}
POOLING: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": [TEXT, "a bridge"]},
    "/v1/rerank": {"query": TEXT, "documents": ["a bridge", "a garden"]},
    "/v1/score": {"text_1": TEXT, "text_2": ["a bridge", "a garden"]},
}
UNBILLED: dict[str, dict[str, Any]] = {
    "/v1/messages/count_tokens": {"messages": CHAT},
    "/v1/tokenize": {"prompt": TEXT},
    "/v1/detokenize": {"tokens": [20, 21, 22]},
}
TERMINAL = (b"data: [DONE]", b"event: response.completed", b"event: message_stop")
CONFIG = simulator.Config(models=(), token_ms=2, prefill_ms=2, everything=True)


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    async with Shop.open(stack, CONFIG) as shop:
        yield shop


@pytest.fixture
async def http(shop: Shop) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(shop.url, headers={"Authorization": f"Bearer {shop.key}"}) as session:
        yield session


def delivered(event: bytes) -> bool:
    """The event of a named stream carries text."""
    return b"event: response.output_text.delta" in event or b"event: content_block_delta" in event


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for data in response.content.iter_any():
        *whole, rest = (rest + data).split(b"\n\n")
        for event in whole:
            yield event


async def row_of(shop: Shop, request_id: str) -> asyncpg.Record:
    """The only row of the request, after comparing it with what the engine knows."""
    (row,) = [row for row in await shop.rows(1) if str(row["id"]) == request_id]
    truth = await shop.engine.ended(request_id)
    assert (row["input_tokens"], row["output_tokens"]) == (truth.prompt_tokens, truth.output_tokens_delivered)
    assert int(row["cost_picousd"]) == cost(row)
    return row


@pytest.mark.parametrize("path", GENERATING | POOLING)
async def test_a_whole_reply(shop: Shop, http: aiohttp.ClientSession, path: str) -> None:
    async with http.post(path, json={"model": shop.model, **(GENERATING | POOLING)[path]}) as response:
        assert response.status == 200, await response.text()
        assert msgspec.json.decode(await response.read())["model"] == shop.model
    row = await row_of(shop, response.headers["x-request-id"])
    assert (row["outcome"], row["usage_source"], row["streamed"]) == ("completed", "engine", False)
    assert row["endpoint"] == path.removeprefix("/v1/").replace("/", ".")


@pytest.mark.parametrize("path", GENERATING)
async def test_a_streamed_reply(shop: Shop, http: aiohttp.ClientSession, path: str) -> None:
    async with http.post(path, json={"model": shop.model, "stream": True, **GENERATING[path]}) as response:
        assert response.status == 200, await response.text()
        seen = [event async for event in events(response)]
    assert seen[-1].startswith(TERMINAL)
    row = await row_of(shop, response.headers["x-request-id"])
    assert (row["outcome"], row["usage_source"], row["streamed"]) == ("completed", "engine", True)
    assert row["output_tokens"] == 12


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_cached_tokens_are_told_apart(shop: Shop, http: aiohttp.ClientSession, path: str) -> None:
    long = "the river and the bridge and the garden " * 20
    asked = {"input": long} if path == "/v1/responses" else {"messages": [{"role": "user", "content": long}]}
    for _ in range(2):
        async with http.post(path, json={"model": shop.model, "stream": True, **GENERATING[path], **asked}) as response:
            await response.read()
    first, second = await shop.rows(2)
    assert first["input_tokens"] == second["input_tokens"]
    assert (first["cached_tokens"], second["cached_tokens"] > 100) == (0, True)
    assert int(second["cost_picousd"]) == cost(second)


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("seen", [1, 2, 5, 11])
async def test_a_hang_up(shop: Shop, http: aiohttp.ClientSession, path: str, seen: int) -> None:
    # the engine stops there, so that what was delivered is certain
    shop.engine.faults.arm(simulator.Fault(fault="stall", after_tokens=seen, times=1))
    async with http.post(path, json={"model": shop.model, "stream": True, **GENERATING[path]}) as response:
        got = 0
        try:
            async with asyncio.timeout(5) as silence:
                async for event in events(response):
                    got += delivered(event)
                    silence.reschedule(asyncio.get_running_loop().time() + 1)
        except TimeoutError:
            pass
    row = await row_of(shop, response.headers["x-request-id"])
    assert row["outcome"] == "client_disconnected"
    if path in ("/v1/responses", "/v1/messages"):
        # a token without text, such as half of a character, is no event
        assert row["usage_source"] == "estimated"
        assert got <= row["output_tokens"] <= seen
    else:
        assert (row["usage_source"], row["output_tokens"]) == ("continuous", seen)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings"])
async def test_a_hang_up_before_the_first_token(shop: Shop, http: aiohttp.ClientSession, path: str) -> None:
    shop.engine.faults.arm(simulator.Fault(fault="slow_prefill", seconds=30, times=1))
    stream = {} if path in POOLING else {"stream": True}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await http.post(path, json={"model": shop.model, **stream, **(GENERATING | POOLING)[path]})
    (row,) = await shop.rows(1)
    await row_of(shop, str(row["id"]))
    assert (row["outcome"], row["usage_source"], row["output_tokens"]) == ("client_disconnected", "estimated", 0)


async def asking_for_text_with_each_token(shop: Shop, path: str) -> dict[str, Any]:
    """A body whose reply has text with each token; in others a token that is a part of a character has none.

    What the engine says depends on the model's name, which is new each time, so prompts are tried on the engine itself.
    """
    async with aiohttp.ClientSession(shop.engine.url) as engine:
        for again in range(50):
            told = TEXT + " Please." * again
            asked = {"input": told} if path == "/v1/responses" else {"messages": [{"role": "user", "content": told}]}
            body = {"model": shop.model, "stream": True, **GENERATING[path], **asked}
            async with engine.post(path, json=body) as response:
                texts = [event for event in [event async for event in events(response)] if delivered(event)]
            if len(texts) == GENERATING[path].get("max_output_tokens", GENERATING[path].get("max_tokens")):
                return body
    raise AssertionError("no prompt gives text with each token")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("fault", ["truncate", "error", "abort"])
async def test_an_engine_that_fails_midway_is_told_in_the_stream(
    shop: Shop, http: aiohttp.ClientSession, path: str, fault: str
) -> None:
    body = await asking_for_text_with_each_token(shop, path)
    shop.engine.faults.arm(simulator.Fault(fault=fault, after_tokens=6, times=1))
    async with http.post(path, json=body) as response:
        seen = [event async for event in events(response)]
    row = await row_of(shop, response.headers["x-request-id"])
    assert row["output_tokens"] == 6
    if fault == "abort" and path == "/v1/responses":
        # the engine completes such a response as if it had ended by itself
        assert row["outcome"] == "completed"
        return
    assert row["outcome"] == "upstream_lost"
    assert not any(event.startswith(TERMINAL) for event in seen)
    assert seen[-1].startswith(b"event: error\ndata: ")
    told = msgspec.json.decode(seen[-1].split(b"data: ", 1)[1])
    assert told["type"] == "error"
    assert told["error"]["type"] == ("api_error" if path == "/v1/messages" else "server_error")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("fault", ["truncate", "http500"])
async def test_until_the_first_token_another_node_is_tried(stack: Stack, path: str, fault: str) -> None:
    async with (
        Shop.open(stack, CONFIG, engines=2) as shop,
        aiohttp.ClientSession(shop.url, headers={"Authorization": f"Bearer {shop.key}"}) as http,
    ):
        shop.engine.faults.arm(simulator.Fault(fault=fault, times=1))
        tries = []
        for _ in range(6):
            async with http.post(path, json={"model": shop.model, "stream": True, **GENERATING[path]}) as response:
                seen = [event async for event in events(response)]
            assert seen[-1].startswith(TERMINAL)
            starts = [
                event for event in seen if event.startswith((b"event: response.created", b"event: message_start"))
            ]
            assert len(starts) == 1
            tries.append(response.headers["x-request-id"])
        rows = await shop.rows(6)
        assert sorted(str(row["id"]) for row in rows) == sorted(tries)
        assert {row["outcome"] for row in rows} == {"completed"}
        assert sorted(row["attempts"] for row in rows) == [1, 1, 1, 1, 1, 2]


async def test_what_computes_nothing_costs_nothing(shop: Shop, http: aiohttp.ClientSession) -> None:
    for path, asked in UNBILLED.items():
        async with http.post(path, json={"model": shop.model, **asked}) as response:
            assert response.status == 200, await response.text()
        async with http.post(
            path, json={"model": shop.model, **asked}, headers={"Authorization": "Bearer no"}
        ) as response:
            assert response.status == 401
    async with http.post("/v1/completions", json={"model": shop.model, **GENERATING["/v1/completions"]}):
        pass
    assert [row["endpoint"] for row in await shop.rows(1)] == ["completions"]


async def test_errors_have_the_shape_of_their_api(shop: Shop) -> None:
    async with aiohttp.ClientSession(shop.url, headers={"x-api-key": shop.key}) as http:
        asked = {"model": shop.model, **GENERATING["/v1/messages"]}
        cases: list[tuple[int, str, dict[str, Any], dict[str, str]]] = [
            (200, "", {}, {}),
            (400, "invalid_request_error", {"max_tokens": "many"}, {}),
            (400, "invalid_request_error", {"max_tokens": 0}, {}),
            (400, "invalid_request_error", {"temperature": "hot"}, {}),
            (401, "authentication_error", {}, {"x-api-key": "no"}),
            (404, "not_found_error", {"model": "nope"}, {}),
        ]
        for status, kind, change, headers in cases:
            async with http.post("/v1/messages", json={**asked, **change}, headers=headers) as response:
                answer = await response.json()
                assert response.status == status, answer
                if kind:
                    assert (answer["type"], answer["error"]["type"]) == ("error", kind)
                    assert set(change) == set() or any(name in answer["error"]["message"] for name in [*change, "nope"])


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("/v1/responses", {"background": True}, "background"),
        ("/v1/responses", {"conversation": "conv_1"}, "conversation"),
        ("/v1/responses", {"max_output_tokens": -1}, "max_output_tokens"),
        ("/v1/responses", {"input": 3}, "input"),
        ("/v1/embeddings", {"input": {"a": 1}}, "input"),
        ("/v1/embeddings", {"dimensions": "x"}, "dimensions"),
        ("/v1/rerank", {"documents": 4}, "documents"),
        ("/v1/rerank", {"top_n": "x"}, "top_n"),
        ("/v1/score", {"text_2": 3}, "text_2"),
        ("/v1/tokenize", {"prompt": 3}, "prompt"),
        ("/v1/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/v1/detokenize", {"tokens": "x"}, "tokens"),
    ],
)
async def test_a_wrong_field_is_named(
    shop: Shop, http: aiohttp.ClientSession, path: str, change: dict[str, Any], param: str
) -> None:
    async with http.post(
        path, json={"model": shop.model, **(GENERATING | POOLING | UNBILLED)[path], **change}
    ) as response:
        answer = await response.json()
        assert (response.status, answer["error"]["param"]) == (400, param), answer


async def test_nothing_is_stored_and_nobody_steers(shop: Shop, http: aiohttp.ClientSession) -> None:
    """The engine sees neither the tenant's key nor a field that would let it reach others."""
    steering = {"priority": -1, "cache_salt": "x", "request_id": "mine", "store": True}
    async with http.post("/v1/responses", json={"model": shop.model, "input": TEXT, **steering}) as response:
        assert response.status == 200
        assert "mine" not in await response.text()
    truth = await shop.engine.ended(response.headers["x-request-id"])
    assert truth.headers is not None
    assert shop.key not in str(truth.headers)
