"""A reply cut anywhere and continued elsewhere is the reply that was not cut."""

from typing import Any

import aiohttp
import msgspec
import pytest

import simulator
from gateway import resume
from gateway.body import Endpoint, prepare
from gateway.kept import Kept

CONFIG = simulator.Config(models=("m",), token_ms=0, prefill_ms=0, max_model_len=200)
CHAT = {"messages": [{"role": "user", "content": "tell of rivers, être, 川"}]}
CASES: list[tuple[Endpoint, dict[str, Any]]] = [
    ("chat.completions", {**CHAT, "max_tokens": 30, "temperature": 0}),
    ("chat.completions", {**CHAT, "max_completion_tokens": 25, "stream_options": {"include_usage": True}}),
    (
        "chat.completions",
        {**CHAT, "max_tokens": 20, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ),
    ("chat.completions", {**CHAT, "max_tokens": 12, "return_token_ids": True}),
    ("completions", {"prompt": "once upon a river", "max_tokens": 18, "stream_options": {"include_usage": True}}),
    ("completions", {"prompt": [5, 6, 7]}),
]


async def asked(session: aiohttp.ClientSession, url: str, path: str, body: bytes) -> bytes:
    async with session.post(f"{url}{path}", data=body, headers={"content-type": "application/json"}) as response:
        assert response.status == 200, await response.text()
        return await response.read()


def kept(prepared: Any) -> Kept:
    return Kept(
        show_usage=prepared.show_usage,
        show_continuous=prepared.show_continuous,
        show_ids=resume.shows_ids(prepared),
    )


def read(body: bytes, endpoint: str) -> tuple[str, list[Any], list[Any], set[str]]:
    """Text, finish reasons, what was said of usage, and the replies' names."""
    events = [msgspec.json.decode(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    assert body.endswith(b"data: [DONE]\n\n")
    choices = [event["choices"][0] for event in events if event["choices"]]
    texts = [c["delta"].get("content", "") if endpoint == "chat.completions" else c["text"] for c in choices]
    finishes = [c["finish_reason"] for c in choices if c["finish_reason"]]
    last = [{k: v for k, v in e["usage"].items() if k.endswith("_tokens")} for e in events if not e["choices"]]
    return "".join(texts), finishes, last, {event["id"] for event in events}


@pytest.mark.parametrize(("endpoint", "asking"), CASES)
async def test_cut_at_every_event_it_reads_the_same(endpoint: Endpoint, asking: dict[str, Any]) -> None:
    raw = msgspec.json.encode({"model": "m", "stream": True, **asking})
    prepared = prepare(raw, endpoint)
    assert resume.possible(prepared, endpoint)
    path = "/v1/chat/completions" if endpoint == "chat.completions" else "/v1/completions"
    async with simulator.serve(CONFIG) as engine, aiohttp.ClientSession() as session:
        body = await asked(session, engine.url, path, resume.with_ids(prepared))
        whole = kept(prepared)
        uncut = whole.feed(body)
        expected = read(uncut, endpoint)
        shown = b'"token_ids":[' in uncut
        assert shown == resume.shows_ids(prepared)
        events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
        for cut in range(1, len(events)):
            broken = kept(prepared)
            seen = b"".join(broken.feed(event) for event in events[:cut])
            rest = resume.Rest(prepared, endpoint, broken, CONFIG.max_model_len)
            if rest.body is None:
                seen += rest.closing()
                total = broken.output_tokens
            else:
                more = resume.Continued(rest)
                seen += more.feed(await asked(session, engine.url, "/v1/completions", rest.body))
                total = more.output_tokens
                assert more.done
                assert more.input_tokens == whole.input_tokens
            assert read(seen, endpoint) == expected, cut
            assert total == whole.output_tokens


async def test_a_reply_may_be_continued_more_than_once() -> None:
    endpoint: Endpoint = "chat.completions"
    prepared = prepare(msgspec.json.encode({"model": "m", "stream": True, **CHAT, "max_tokens": 30}), endpoint)
    async with simulator.serve(CONFIG) as engine, aiohttp.ClientSession() as session:
        body = await asked(session, engine.url, "/v1/chat/completions", resume.with_ids(prepared))
        expected = read(kept(prepared).feed(body), endpoint)
        leg: Kept = kept(prepared)
        seen = b""
        for _ in range(20):
            events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
            seen += b"".join(leg.feed(event) for event in events[:4])
            if leg.done:
                break
            rest = resume.Rest(prepared, endpoint, leg, CONFIG.max_model_len)
            if rest.body is None:
                seen += rest.closing()
                break
            leg = resume.Continued(rest)
            body = await asked(session, engine.url, "/v1/completions", rest.body)
        assert read(seen, endpoint) == expected


@pytest.mark.parametrize(
    "obstacle",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"frequency_penalty": 0.5},
        {"presence_penalty": -0.5},
        {"logprobs": True},
        {"stop": ["river"]},
        {"stream": False},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    ],
)
def test_what_ids_do_not_carry_over_is_not_continued(obstacle: dict[str, Any]) -> None:
    raw = msgspec.json.encode({"model": "m", "stream": True, **CHAT, **obstacle})
    assert not resume.possible(prepare(raw, "chat.completions"), "chat.completions")


def test_neutral_values_are_no_obstacle() -> None:
    neutral = {
        "frequency_penalty": 0,
        "stop": None,
        "logprobs": False,
        "response_format": {"type": "text"},
        "tools": [],
    }
    raw = msgspec.json.encode({"model": "m", "stream": True, **CHAT, **neutral})
    assert resume.possible(prepare(raw, "chat.completions"), "chat.completions")
