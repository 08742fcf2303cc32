"""Every reply has the bytes that a real vLLM 0.32 sent, but for ids, times, text and counts."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from simulator import Config, serve

HERE = Path(__file__).parent / "recordings"
JSON = {"content-type": "application/json"}

# Log probabilities are numbers and names of another model: those replies are compared by shape and spacing.
BY_SHAPE = {"06_chat_stream_logprobs", "06b_chat_nonstream_logprobs", "10g_comp_token_ids_echo", "43_extra_fields"}
HEADERS = {"30_request_id": {"x-request-id": "gw-abc-123"}, "30b_request_id_stream": {"x-request-id": "gw-abc-124"}}
CASES = sorted(p.name.removesuffix(".req.json") for p in HERE.glob("*.req.json"))

TEXT = r'"((?:[^"\\]|\\.)*)"'
COUNTS = (
    "prompt_tokens|total_tokens|completion_tokens|cached_tokens|created_cache_tokens|created|created_at|count|"
    "input_tokens|output_tokens|cache_creation_input_tokens|cache_read_input_tokens|original_input_tokens|"
    "cache_write_tokens|sequence_number"
)


def path_of(name: str) -> str:
    if name.startswith("40"):
        return "/detokenize" if "detokenize" in name else "/tokenize"
    if name.startswith("41"):
        return "/v1/responses"
    if name.startswith("42"):
        return "/v1/messages/count_tokens" if "count_tokens" in name else "/v1/messages"
    return "/v1/completions" if name.startswith("10") or "completion_prompt" in name else "/v1/chat/completions"


def dechunk(raw: bytes) -> bytes:
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return raw
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert rest == b"\r\n"
            return head + b"\r\n\r\n" + body
        chunk, rest = rest[:length], rest[length:]
        # One event is one HTTP chunk, as uvicorn writes them.
        assert chunk.endswith(b"\n\n")
        assert rest.startswith(b"\r\n")
        body += chunk
        rest = rest[2:]


def split(raw: bytes) -> tuple[str, str]:
    # One recorder wrote bare newlines.
    head, _, body = raw.partition(b"\r\n\r\n" if b"\r\n\r\n" in raw else b"\n\n")
    text = head.decode().replace("\r\n", "\n")
    text = re.sub(r"date: .*", "date: D", text)
    text = re.sub(r"content-length: [1-9]\d*", "content-length: N", text)
    return re.sub(r"x-request-id: [0-9a-f]{32}", "x-request-id: R", text), body.decode()


def level(body: str) -> str:
    """The body with everything replaced that may differ."""
    body = re.sub(r'"(chatcmpl|cmpl|chatcmpl-tool|modelperm|embd|score)-[0-9a-f]{16}"', r'"\1-ID"', body)
    body = re.sub(r'"(resp|msg)_[0-9a-f]{16}"', r'"\1_ID"', body)
    body = re.sub(rf'"({COUNTS})":\d+', r'"\1":0', body)
    body = re.sub(rf'"(text|arguments|stop_reason|delta)":{TEXT}', r'"\1":"T"', body)
    body = re.sub(
        rf'("delta":\{{|"role":"assistant",(?="content":{TEXT},"refusal"))"content":{TEXT}', r'\1"content":"T"', body
    )
    body = re.sub(r'"(tokens|token_ids|prompt_token_ids)":\[[\d,]*\]', r'"\1":[0]', body)
    body = re.sub(r'"token_strs":\[.*\]', '"token_strs":[]', body)
    body = re.sub(r'"(index|score|relevance_score)":[\d.e-]+', r'"\1":0', body) if '"score-ID"' in body else body
    body = re.sub(r'"embedding":(\[[^\]]*\]|"[^"]*")', '"embedding":V', body)
    events = body.split("\n\n")
    # How many chunks there are depends on the text; their sequence of forms does not.
    return "\n\n".join(e for i, e in enumerate(events) if i == 0 or not e or e != events[i - 1])


def shape(value: object) -> object:
    if isinstance(value, dict):
        keys = {"N" if k.isdigit() else k: shape(v) for k, v in value.items()}
        return "map" if all(isinstance(v, float) for v in value.values()) else list(keys.items())
    if isinstance(value, list):
        return [s for i, s in enumerate(map(shape, value)) if i == 0 or s != shape(value[i - 1])]
    return type(value).__name__


def shapes(body: str) -> list[object]:
    found: list[object] = []
    for line in filter(None, body.split("\n\n")):
        text = line.removeprefix("data: ")
        if text == "[DONE]":
            found.append(text)
            continue
        value = json.loads(text)
        assert json.dumps(value, separators=(",", ":"), ensure_ascii=False) == text
        found.append(shape(value))
    return found


def check(name: str, raw: bytes) -> None:
    want_head, want_body = split((HERE / f"{name}.http").read_bytes())
    head, body = split(dechunk(raw))
    if "x-request-id" not in want_head:
        # That server ran without --enable-request-id-headers.
        head = head.replace("\nx-request-id: R", "")
    assert head == want_head
    if name in BY_SHAPE:
        assert shapes(body) == shapes(want_body)
    else:
        assert level(body) == level(want_body)


@pytest.mark.parametrize("name", CASES)
async def test_reply_equals_the_recorded_one(name, sim, exchange):
    body = (HERE / f"{name}.req.json").read_bytes()
    version = "1.0" if name == "47b_http10" else "1.1"
    check(name, await exchange(sim.url, path_of(name), body, headers=JSON | HEADERS.get(name, {}), version=version))


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("23_err_404_path", "GET", "/v1/nothing"),
        ("23b_err_405", "GET", "/v1/chat/completions"),
        ("23c_err_content_type", "POST", "/v1/chat/completions"),
        ("50_health", "GET", "/health"),
        ("50_ping", "GET", "/ping"),
        ("50_load", "GET", "/load"),
        ("50_version", "GET", "/version"),
        ("50_v1_models", "GET", "/v1/models"),
    ],
)
async def test_plain_reply_equals_the_recorded_one(name, method, path, sim, exchange):
    headers = {"content-type": "text/plain"} if method == "POST" else {}
    check(name, await exchange(sim.url, path, method=method, headers=headers))


async def test_missing_key_is_refused_as_recorded(config, exchange):
    async with serve(Config(models=("tiny",), api_key="secret")) as sim:
        check("62_apikey_missing", await exchange(sim.url, "/v1/models", method="GET"))
        known = await exchange(sim.url, "/v1/models", method="GET", headers={"authorization": "Bearer secret"})
        assert known.startswith(b"HTTP/1.1 200 OK")
        for path in ("/health", "/metrics", "/load"):
            assert (await exchange(sim.url, path, method="GET")).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("68_embeddings", {"input": ["Hello", "Hello, world!"]}),
        ("68b_embeddings_base64", {"encoding_format": "base64"}),
        ("68c_embeddings_token_ids", {"input": [[1, 2], [3]]}),
        ("68g_embed_too_long", {"input": "word " * 7800}),
        ("68d_embeddings_dimensions", {"dimensions": 8}),
        ("68e_embeddings_bad_model", {"model": "nope"}),
        ("68f_chat_on_embed_model", None),
        ("69_rerank", {"query": "river", "documents": ["a bridge", "a garden"], "top_n": 1}),
        ("69b_score", {"text_1": "river", "text_2": ["a bridge", "a garden"]}),
        ("69c_score_lengths", {"text_1": ["river", "x"], "text_2": ["a", "b", "c"]}),
        ("69d_rerank_bad_model", {"model": "nope", "query": "river", "documents": ["a"]}),
        ("69e_rerank_missing", {"query": "river"}),
    ],
)
async def test_embedding_server_replies_as_recorded(name, fields, exchange):
    async with serve(Config(models=("tiny",), prefill_ms=0, embed=True, max_model_len=2048)) as sim:
        path = "/v1/chat/completions" if fields is None else "/v1/embeddings"
        given = {"model": "tiny"} if name.startswith("69") else {"model": "tiny", "input": "Hello"}
        if name.startswith("69"):
            path = "/v1/rerank" if "rerank" in name else "/v1/score"
        body = json.dumps(given | (fields or {})).encode()
        check(name, await exchange(sim.url, path, body, headers=JSON))


@pytest.mark.parametrize(
    ("name", "path", "fields"),
    [
        ("41d_responses_prev", "/v1/responses", {"input": "Hello", "previous_response_id": "resp_nope"}),
        ("41e_responses_background", "/v1/responses", {"input": "Hello", "background": True}),
        ("42e_messages_err_max", "/v1/messages", {"messages": [], "max_tokens": 3000}),
        ("42f_messages_err_missing", "/v1/messages", {"messages": []}),
    ],
)
async def test_refusal_equals_the_recorded_one(name, path, fields, sim, exchange):
    check(name, await exchange(sim.url, path, json.dumps({"model": "tiny"} | fields).encode(), headers=JSON))


@pytest.mark.parametrize("stream", [False, True])
async def test_full_queue_is_refused_as_recorded(stream, http, exchange):
    async with serve(Config(models=("tiny",), max_num_seqs=1, max_queued=1, prefill_ms=60_000)) as sim:
        body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
        async with http.post(sim.url + "/v1/chat/completions", data=body, headers=JSON):
            refused = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": stream}).encode()
            raw = await exchange(sim.url, "/v1/chat/completions", refused, headers=JSON)
            # The recorder lost the reason phrase.
            check("72_queue_full_503", raw.replace(b"503 Service Unavailable", b"503"))
            assert b"retry-after" not in raw.lower()


async def test_idle_connection_closes_after_five_seconds(sim):
    host, port = sim.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    began = asyncio.get_running_loop().time()
    assert await reader.read() == b""
    assert 4.5 < asyncio.get_running_loop().time() - began < 6
    writer.close()
