"""`/v1/responses` and `/v1/messages` break, stop and are on record as chats are."""

import asyncio
import json

import aiohttp
import pytest

from simulator import Config, serve

ASKED = {
    "/v1/responses": {"model": "tiny", "input": "Hi", "max_output_tokens": 8, "stream": True},
    "/v1/messages": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True},
}
END = {"/v1/responses": "response.completed", "/v1/messages": "message_stop"}


async def read(http, path, fault=""):
    """Events (name, body) until the connection ended, and how it did."""
    raw = b""
    headers = {"x-request-id": "r"} | ({"x-sim-fault": fault} if fault else {})
    error = None
    async with http.post(path, json=ASKED[path], headers=headers) as response:
        try:
            async for data in response.content.iter_any():
                raw += data
        except aiohttp.ClientError as failure:
            error = failure
    events = [event.split("\n", 1) for event in raw.decode().split("\n\n")[:-1]]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events], error


@pytest.mark.parametrize("path", ASKED)
async def test_an_event_each_token_and_the_sum_at_the_end(path, sim, http):
    events, error = await read(http, path)
    assert error is None
    assert events[-1][0] == END[path]
    assert len([name for name, _ in events if name.endswith("delta") and name != "message_delta"]) == 8
    record = await sim.ended("r")
    assert (record.output_tokens_delivered, record.ending) == (8, "completed")
    usage = events[-1][1]["response"]["usage"] if path == "/v1/responses" else events[-2][1]["usage"]
    assert usage["output_tokens"] == 8


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("fault", ["truncate", "error", "stall"])
async def test_faults_end_before_the_end(path, fault, sim, http):
    try:
        async with asyncio.timeout(0.5):
            events, error = await read(http, path, f"{fault};after_tokens=3")
    except TimeoutError:
        assert fault == "stall"
        events, error = [], None
    assert END[path] not in [name for name, _ in events]
    if fault == "error" and path == "/v1/messages":
        assert error is None
        assert events[-1][1]["error"]["type"] == "internal_error"
    elif fault != "stall":
        assert isinstance(error, aiohttp.ClientPayloadError)
    record = await sim.ended("r")
    assert (record.ending, record.output_tokens_delivered) == (f"fault:{fault}", 3)


async def test_a_stopping_server_gives_a_message_no_reason(http, sim):
    events, _ = await read(http, "/v1/messages", "abort;after_tokens=2")
    assert events[-2][1]["delta"]["stop_reason"] is None


async def test_one_model_may_have_every_endpoint():
    config = Config(models=("tiny",), prefill_ms=0, everything=True)
    async with serve(config) as sim, aiohttp.ClientSession(sim.url) as http:

        async def ask(path, **fields):
            async with http.post(path, json={"model": "tiny", **fields}, headers={"x-request-id": path}) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        ranked = await ask("/v1/rerank", query="river", documents=["a bridge", "a garden"], top_n=1)
        assert len(ranked["results"]) == 1
        scored = await ask("/v1/score", text_1="river", text_2=["a bridge", "a garden"])
        assert [one["index"] for one in scored["data"]] == [0, 1]
        embedded = await ask("/v1/embeddings", input=["river"])
        for path, answer in (("/v1/rerank", ranked), ("/v1/score", scored), ("/v1/embeddings", embedded)):
            record = await sim.ended(path)
            assert answer["usage"]["prompt_tokens"] == record.prompt_tokens > 0
