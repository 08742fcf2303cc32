"""What is read of a body, what is refused, and what an engine gets to see."""

import msgspec
import pytest

from common.errors import InvalidRequest
from gateway.body import STEERING, Endpoint, prepare

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: object) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"text"', None),
        (b'{"model":"m"}', "messages"),
        (b'{"messages":[]}', "model"),
        (chat(model=3), "model"),
        (chat(model=""), "model"),
        (chat(stream="yes"), "stream"),
        (chat(n=0), "n"),
        (chat(n=10**9), "n"),
        (chat(n=10**30), "n"),
        (chat(n="2"), "n"),
        (chat(max_tokens=-1), "max_tokens"),
        (chat(max_tokens=1.5), "max_tokens"),
        (chat(max_completion_tokens="many"), "max_completion_tokens"),
        (chat(messages="hi"), "messages"),
        (chat(stream=True, stream_options=[]), "stream_options"),
        (chat(stream=True, stream_options={"include_usage": "yes"}), "stream_options.include_usage"),
        (chat(stream_options={"include_usage": True}), "stream_options"),
        (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"model":"\xff\xfe","messages":[]}', None),
    ],
)
def test_a_wrong_body_is_refused_by_the_field_that_is_wrong(raw: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prepare(raw, "chat.completions")
    assert refused.value.status == 400
    if param is not None:
        assert refused.value.param == param


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("a", 2), (["a"], 2), (["a", "b", "c"], 6), ([1, 2, 3], 2), ([[1], [2, 3]], 4)],
)
def test_prompts_are_counted(prompt: object, choices: int) -> None:
    raw = msgspec.json.encode({"model": "m", "prompt": prompt, "n": 2})
    assert prepare(raw, "completions").choices == choices


@pytest.mark.parametrize("prompt", [None, 3, {}, [], ["a", 1.5]])
def test_a_wrong_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prepare(msgspec.json.encode({"model": "m", "prompt": prompt}), "completions")
    assert refused.value.param == "prompt"


@pytest.mark.parametrize(
    ("options", "show_usage", "show_continuous"),
    [
        (None, False, False),
        ({}, False, False),
        ({"include_usage": False}, False, False),
        ({"include_usage": True}, True, False),
        ({"include_usage": True, "continuous_usage_stats": True}, True, True),
        ({"continuous_usage_stats": True}, False, False),
    ],
)
def test_usage_is_always_asked_of_the_engine(options: object, show_usage: bool, show_continuous: bool) -> None:
    prepared = prepare(chat(stream=True, stream_options=options), "chat.completions")
    sent = msgspec.json.decode(prepared.body)
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (prepared.show_usage, prepared.show_continuous) == (show_usage, show_continuous)


def test_fields_that_steer_the_engine_never_reach_it() -> None:
    sent = msgspec.json.decode(prepare(chat(**dict.fromkeys(STEERING, 1), top_k=5), "chat.completions").body)
    assert sent == {"model": "m", "messages": MESSAGES, "top_k": 5}


@pytest.mark.parametrize("endpoint", ["chat.completions"])
def test_a_field_given_twice_counts_once_for_us_and_for_the_engine(endpoint: Endpoint) -> None:
    raw = b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"b","n":1,"n":2}'
    prepared = prepare(raw, endpoint)
    sent = msgspec.json.decode(prepared.body)
    assert (sent["model"], sent["n"]) == (prepared.model, prepared.n) == ("b", 2)
    assert prepared.body.count(b'"model"') == 1


@pytest.mark.parametrize(
    ("fields", "max_output"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 7, "max_completion_tokens": 5, "n": 2}, 10),
        ({"max_tokens": 0}, 0),
    ],
)
def test_the_limit_of_a_reply_covers_all_its_choices(fields: dict[str, object], max_output: int | None) -> None:
    prepared = prepare(chat(**fields), "chat.completions")
    assert prepared.max_output == max_output
    assert prepared.prompt_bytes == len(msgspec.json.encode(MESSAGES))
