"""The short way through an event tells the same as the long one."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.kept import Kept

HOSTILE = st.sampled_from(
    [
        '"finish_reason":null,"token_ids":[7]}],"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":9}}\n\n',
        '","finish_reason":null,"token_ids":[',
        ',"usage":{"prompt_tokens":3',
        '"content":"x"',
        "\\",
        "data: [DONE]\n\n",
    ]
)
TEXT = st.text(max_size=8) | HOSTILE
DELTAS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda text: {"content": text}, TEXT),
    st.builds(lambda text: {"reasoning": text, "content": None}, TEXT),
    st.builds(lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}, TEXT),
)


def event(number: int, delta: dict[str, Any], ids: list[int] | None, finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": ids}
    usage = {"prompt_tokens": 5, "total_tokens": 5 + number, "completion_tokens": number}
    body: dict[str, Any] = {"id": "c", "model": "m", "choices": [choice]}
    if number == 0:
        body["prompt_token_ids"] = [1, 2, 3]
    return b"data: " + msgspec.json.encode({**body, "usage": usage}) + b"\n\n"


@given(
    deltas=st.lists(st.tuples(DELTAS, st.lists(st.integers(0, 99999), max_size=3)), max_size=12),
    last=st.sampled_from([None, "stop", "length", "abort"]),
    show_usage=st.booleans(),
)
def test_the_common_event_is_read_as_any_other(
    deltas: list[tuple[dict[str, Any], list[int]]], last: str | None, show_usage: bool
) -> None:
    short = Kept(show_usage=show_usage, show_continuous=False)
    long = Kept(show_usage=show_usage, show_continuous=False)
    long._hides = False
    told = [event(0, {"role": "assistant", "content": ""}, None, None)]
    told += [event(n, delta, ids, None) for n, (delta, ids) in enumerate(deltas, 1)]
    told += [event(len(deltas), {"content": "!"}, [4], last), b"data: [DONE]\n\n"]
    for data in told:
        assert short.feed(data) == long.feed(data)
        for name in ("ids", "input_tokens", "output_tokens", "events", "finished", "other", "aborted", "done"):
            assert getattr(short, name) == getattr(long, name), name
    assert short.prompt_ids == long.prompt_ids == b"1,2,3"
