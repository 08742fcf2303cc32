"""The record tells what happened, however the request ended."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys

import aiohttp
import pytest

from simulator import Config, serve

CHAT = "/v1/chat/completions"
SLOW = Config(models=("tiny",), token_ms=20, prefill_ms=1)


def ask(**fields):
    return {"messages": [{"role": "user", "content": "Hello, world!"}], "max_tokens": 5} | fields


async def scrape(http, name):
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{name}{{"))


async def test_completed_request_is_on_record_with_its_headers(sim, http):
    headers = {"x-request-id": "q1", "authorization": "Bearer node-key"}
    async with http.post(CHAT, json=ask(model="tiny"), headers=headers) as response:
        usage = (await response.json())["usage"]
        assert response.headers["x-request-id"] == "q1"
    async with http.get("/sim/requests", params={"request_id": "q1", "wait": "2"}) as response:
        (record,) = await response.json()
    assert record["prompt_tokens"] == usage["prompt_tokens"] == 11
    assert record["output_tokens_produced"] == record["output_tokens_delivered"] == usage["completion_tokens"] == 5
    assert (record["ending"], record["stream"], record["per_choice"]) == ("completed", False, [5])
    assert record["headers"]["authorization"] == "Bearer node-key"
    assert record["started"] <= record["ended"]
    async with http.get("/sim/requests/q1") as response:
        assert await response.json() == record
    async with http.get("/sim/requests/q2") as response:
        assert response.status == 404


async def test_records_are_read_from_where_one_stopped(sim, http):
    for _ in range(3):
        async with http.post(CHAT, json=ask()) as response:
            await response.read()
    async with http.get("/sim/requests", params={"since": "1"}) as response:
        assert [r["seq"] for r in await response.json()] == [2, 3]


async def test_refused_request_is_on_record(sim, http):
    async with http.post(CHAT, json=ask(model="nope"), headers={"x-request-id": "n"}) as response:
        assert response.status == 404
    record = await sim.ended("n")
    assert (record.ending, record.status, record.output_tokens_produced) == ("refused", 404, 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_is_aborted_at_once(stream):
    async with serve(SLOW) as sim, aiohttp.ClientSession(sim.url) as http:
        before = await scrape(http, "request_success_total")
        task = asyncio.create_task(_leave(sim.url, stream))
        async with asyncio.timeout(5):
            while await scrape(http, "generation_tokens_total") < 6:
                await asyncio.sleep(0.01)
        assert sim.engine.running == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = asyncio.get_running_loop().time()
        record = await sim.ended("gone")
        assert asyncio.get_running_loop().time() - left < 0.1
        assert sim.engine.running == 0
        assert record.ending == "client_disconnected"
        assert record.output_tokens_produced == sum(record.per_choice) >= 6
        assert record.output_tokens_delivered == (record.output_tokens_produced if stream else 0)
        assert await scrape(http, "request_success_total") == before
        async with http.get("/load") as response:
            assert await response.json() == {"server_load": 0}


async def _leave(url, stream):
    async with aiohttp.ClientSession(url) as http:
        body = ask(n=2, max_tokens=1000, stream=stream)
        async with http.post(CHAT, json=body, headers={"x-request-id": "gone"}) as response:
            await response.read()


async def test_client_that_leaves_the_queue_frees_it():
    config = Config(max_num_seqs=1, prefill_ms=60_000)
    async with serve(config) as sim:
        tasks = [asyncio.create_task(_leave(sim.url, True)) for _ in range(2)]
        async with asyncio.timeout(5):
            while sim.engine.running + sim.engine.waiting < 4:
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            while len(sim.requests) < 2:
                await asyncio.sleep(0.01)
        assert (sim.engine.running, sim.engine.waiting) == (0, 0)
        assert {r.output_tokens_produced for r in sim.requests} == {0}


async def test_client_that_does_not_read_is_not_counted_as_served():
    async with serve(Config(token_ms=0, prefill_ms=0, max_model_len=200_000)) as sim:
        host, port = sim.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps(ask(stream=True, max_tokens=60_000)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"x-request-id: lazy\r\n\r\n" + body)
        await reader.readexactly(1000)
        async with asyncio.timeout(20):
            while sim.engine.running:
                await asyncio.sleep(0.05)
        writer.transport.abort()
        record = await sim.ended("lazy")
        assert record.ending == "client_disconnected"
        assert record.output_tokens_delivered < record.output_tokens_produced == 60_000


async def test_sigterm_ends_streams_with_abort_usage_and_done(tmp_path):
    truth = tmp_path / "truth.jsonl"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIM_")}
    environment |= {"SIM_PORT": "0", "SIM_TOKEN_MS": "20", "SIM_GROUND_TRUTH": str(truth)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", env=environment, stderr=subprocess.PIPE
    )
    assert process.stderr
    try:
        url = (await process.stderr.readline()).decode().split()[-1]
        async with aiohttp.ClientSession(url) as http:
            body = ask(max_tokens=1000, stream=True, stream_options={"include_usage": True})
            async with http.post(CHAT, json=body, headers={"x-request-id": "st"}) as response:
                raw = b""
                while raw.count(b"\n\n") < 5:
                    raw += await response.content.readany()
                process.send_signal(signal.SIGTERM)
                raw += await response.content.read()
        *_, finish, usage, done, rest = raw.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        assert json.loads(finish.removeprefix(b"data: "))["choices"][0]["finish_reason"] == "abort"
        tokens = json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"]
        assert tokens > 0
        assert await asyncio.wait_for(process.wait(), 5) == 0
        (record,) = (json.loads(line) for line in truth.read_text().splitlines())
        assert (record["ending"], record["request_id"]) == ("aborted", "st")
        assert record["output_tokens_produced"] == record["output_tokens_delivered"] == tokens
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("stream", [True, False])
async def test_stopping_ends_what_runs_waits_and_stalls(stream):
    async with aiohttp.ClientSession() as http:
        async with serve(Config(max_num_seqs=2, token_ms=5)) as sim:
            tasks = []
            async with asyncio.timeout(5):
                for name, fault in (("stalls", "stall"), ("runs", ""), ("waits", "")):
                    tasks.append(asyncio.create_task(_post(http, sim.url, stream, name, fault)))
                    while sim.engine.running + sim.engine.waiting < len(tasks):
                        await asyncio.sleep(0.01)
                while sim.engine.counters.generation_tokens < 5:
                    await asyncio.sleep(0.01)
            assert (sim.engine.running, sim.engine.waiting) == (2, 1)
        stalled, ran, waited = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(stalled, aiohttp.ClientError)
    for raw in (ran, waited):
        assert b'"finish_reason":"abort"' in raw
    endings = {r.request_id: r.ending for r in sim.requests}
    assert endings == {"stalls": "fault:stall", "runs": "aborted", "waits": "aborted"}


async def _post(http, url, stream, name, fault):
    headers = {"x-request-id": name, "x-sim-fault": fault}
    async with http.post(url + CHAT, json=ask(max_tokens=5000, stream=stream), headers=headers) as response:
        return await response.read()


async def test_body_of_megabytes_is_read(sim, http):
    body = io.BytesIO(json.dumps(ask(messages=[{"role": "user", "content": "x" * 3_000_000}])).encode())
    async with http.post(CHAT, data=body, headers={"content-type": "application/json"}) as response:
        assert response.status == 400
        assert "3000032 characters" in (await response.json())["error"]["message"]
