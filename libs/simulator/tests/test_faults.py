"""What breaks on demand breaks as asked, and is on record."""

import asyncio
import json

import aiohttp
import pytest

from simulator import Config, Fault, serve

CHAT = "/v1/chat/completions"


def ask(**fields):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True}
    return body | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}} | fields


def usage(raw: bytes) -> int:
    """Completion tokens in the last complete event that carries usage."""
    found = 0
    for event in raw.split(b"\n\n")[:-1]:
        data = event.removeprefix(b"data: ")
        if data.startswith(b"{"):
            found = (json.loads(data).get("usage") or {"completion_tokens": found})["completion_tokens"]
    return found


async def read(http, fault, rid, **fields):
    """Bytes until the connection ended, and how it did."""
    raw = b""
    headers = {"x-sim-fault": fault, "x-request-id": rid}
    async with http.post(CHAT, json=ask(**fields), headers=headers) as response:
        try:
            async for data in response.content.iter_any():
                raw += data
        except aiohttp.ClientError as error:
            return raw, error
    return raw, None


@pytest.mark.parametrize("after", range(9))
async def test_truncated_stream_has_neither_end_nor_done(after, sim, http):
    raw, error = await read(http, f"truncate;after_tokens={after}", "t")
    assert isinstance(error, aiohttp.ClientPayloadError)
    assert b"[DONE]" not in raw
    record = await sim.ended("t")
    assert record.ending == "fault:truncate"
    assert record.output_tokens_produced == record.output_tokens_delivered == usage(raw) == after


async def test_reset_is_a_reset(sim):
    host, port = sim.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(ask()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + b"x-request-id: r\r\nx-sim-fault: reset;after_tokens=3\r\n\r\n" + body)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert (await sim.ended("r")).ending == "fault:reset"


@pytest.mark.parametrize(("fault", "code"), [("error", 500), ("error400", 400)])
async def test_error_inside_the_stream_is_followed_by_done(fault, code, sim, http):
    raw, error = await read(http, f"{fault};after_tokens=2", "e")
    assert error is None
    *_, last, done, rest = raw.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == code
    record = await sim.ended("e")
    assert (record.ending, record.output_tokens_delivered) == (f"fault:{fault}", 2)


async def test_stall_sends_nothing_more_until_the_client_leaves(sim, http):
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.3):
            await read(http, "stall;after_tokens=3", "s")
    record = await sim.ended("s")
    assert (record.ending, record.output_tokens_delivered) == ("fault:stall", 3)
    assert sim.engine.running == 0


async def test_abort_ends_as_a_stopping_server_does(sim, http):
    raw, error = await read(http, "abort;after_tokens=2", "a")
    assert error is None
    events = raw.split(b"\n\n")
    finish = json.loads(events[-4].removeprefix(b"data: "))["choices"][0]
    assert (finish["finish_reason"], finish["delta"]) == ("abort", {})
    assert usage(raw) == 2
    assert events[-2] == b"data: [DONE]"


@pytest.mark.parametrize("status", [500, 503])
async def test_refusals_come_as_status(status, sim, http):
    headers = {"x-sim-fault": f"http{status}", "x-request-id": "h"}
    async with http.post(CHAT, json=ask(), headers=headers) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == status
    record = await sim.ended("h")
    assert (record.ending, record.output_tokens_produced) == (f"fault:http{status}", 0)


@pytest.mark.parametrize("fault", ["error", "error400", "abort", "truncate", "reset"])
async def test_whole_replies_fail_too(fault, sim, http):
    body = ask(stream=False)
    del body["stream_options"]
    headers = {"x-sim-fault": f"{fault};after_tokens=2", "x-request-id": "w"}
    if fault in ("truncate", "reset"):
        with pytest.raises(aiohttp.ClientError):
            async with http.post(CHAT, json=body, headers=headers) as response:
                await response.read()
    else:
        async with http.post(CHAT, json=body, headers=headers) as response:
            reply = await response.json()
        if fault == "abort":
            assert reply["choices"][0]["finish_reason"] == "abort"
            assert reply["usage"]["completion_tokens"] == 2
        else:
            assert response.status == reply["error"]["code"] == (500 if fault == "error" else 400)
    record = await sim.ended("w")
    assert record.ending == f"fault:{fault}"
    assert record.output_tokens_produced == 2


@pytest.mark.parametrize("fault", ["split;size=3", "coalesce;size=3", "multi_token;size=3", "split, multi_token"])
async def test_shape_of_the_bytes_changes_nothing_else(fault, sim, http):
    plain, _ = await read(http, "coalesce;size=1", "p", temperature=0)
    raw, error = await read(http, fault, "f", temperature=0)
    assert error is None
    assert raw.endswith(b"data: [DONE]\n\n")
    assert usage(raw) == usage(plain) == 8
    texts = []
    for page in (plain, raw):
        chunks = [json.loads(e.removeprefix(b"data: ")) for e in page.split(b"\n\n")[:-2]]
        texts.append("".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]))
    assert texts[0] == texts[1]
    if "multi_token" in fault:
        assert raw.count(b"\n\n") < plain.count(b"\n\n")
    record = await sim.ended("f")
    assert (record.ending, record.output_tokens_delivered) == ("completed", 8)


async def test_slow_prefill_delays_the_first_token(sim, http):
    began = asyncio.get_running_loop().time()
    await read(http, "slow_prefill;seconds=0.3", "d")
    assert asyncio.get_running_loop().time() - began > 0.29


async def test_armed_faults_strike_so_many_times_and_can_be_disarmed(sim, http):
    async with http.post("/sim/faults", json={"fault": "http500", "times": 2}) as response:
        assert [f["fault"] for f in await response.json()] == ["http500"]
    statuses = []
    for _ in range(3):
        async with http.post(CHAT, json=ask()) as response:
            statuses.append(response.status)
            await response.read()
    assert statuses == [500, 500, 200]
    sim.faults.arm(Fault("http503"))
    async with http.delete("/sim/faults") as response:
        assert await response.json() == []
    async with http.post(CHAT, json=ask()) as response:
        assert response.status == 200
    async with http.post("/sim/faults", json={"fault": "nonsense"}) as response:
        assert response.status == 400


async def test_probability_strikes_some():
    async with serve(Config(token_ms=0, prefill_ms=0, seed=7)) as sim, aiohttp.ClientSession(sim.url) as http:
        sim.faults.arm(Fault("http503", probability=0.5))
        for _ in range(40):
            async with http.post(CHAT, json=ask(max_tokens=1)) as response:
                await response.read()
        struck = sum(r.ending == "fault:http503" for r in sim.requests)
        assert 5 < struck < 35


async def test_comment_lines_fill_the_wait():
    config = Config(token_ms=0, prefill_ms=300, sse_keepalive_s=0.05)
    async with serve(config) as sim, aiohttp.ClientSession(sim.url) as http:
        raw, _ = await read(http, "", "k")
    assert raw.startswith(b": keep-alive\n\n: keep-alive\n\n")
    assert raw.endswith(b"data: [DONE]\n\n")
