"""What the client sees and what is counted, compared with streams that a real engine sent."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import EngineError, Stream

RECORDINGS = Path(__file__).parents[3] / "libs/simulator/tests/recordings"


def recorded(name: str) -> bytes:
    """The body of a recorded stream."""
    return (RECORDINGS / f"{name}.http").read_bytes().replace(b"\r\n", b"\n").split(b"\n\n", 1)[1]


def plain(body: bytes) -> list[dict[str, object]]:
    return [msgspec.json.decode(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]


def without_usage(body: bytes) -> list[dict[str, object]]:
    events = plain(body)
    for event in events:
        event.pop("usage", None)
    return [event for event in events if event["choices"]]


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(body) + 1) for cut in cuts})
    return [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True)]


CONTINUOUS = ["04_chat_stream_continuous", "10d_comp_stream_continuous"]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_usage_that_was_not_asked_for_is_cut_and_nothing_else(name: str) -> None:
    body = recorded(name)
    stream = Stream(show_usage=False, show_continuous=False)
    seen = stream.feed(body)
    assert plain(seen) == without_usage(body)
    assert b'"usage"' not in seen
    assert seen.endswith(b"data: [DONE]\n\n")
    assert stream.done
    assert stream.final


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_final_usage_is_passed_when_asked_for(name: str) -> None:
    body = recorded(name)
    seen = plain(Stream(show_usage=True, show_continuous=False).feed(body))
    assert seen[-1] == plain(body)[-1]
    assert all("usage" not in event for event in seen[:-1])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_usage_is_passed_when_asked_for(name: str) -> None:
    body = recorded(name)
    assert Stream(show_usage=True, show_continuous=True).feed(body) == body


@pytest.mark.parametrize("name", CONTINUOUS)
@given(cuts=st.lists(st.integers(0, 5000), max_size=30), crlf=st.booleans())
def test_where_the_bytes_are_cut_changes_nothing(name: str, cuts: list[int], crlf: bool) -> None:
    body = recorded(name)
    whole = Stream(show_usage=False, show_continuous=False)
    expected = whole.feed(body)
    stream = Stream(show_usage=False, show_continuous=False)
    sent = body.replace(b"\n", b"\r\n") if crlf else body
    seen = b"".join(stream.feed(piece) for piece in pieces(sent, cuts))
    assert seen == expected
    assert (stream.input_tokens, stream.output_tokens, stream.done) == (
        whole.input_tokens,
        whole.output_tokens,
        True,
    )


@pytest.mark.parametrize("name", CONTINUOUS)
def test_tokens_are_those_of_the_last_event_wherever_the_stream_ends(name: str) -> None:
    body = recorded(name)
    stream = Stream(show_usage=False, show_continuous=False)
    for event in body.split(b"\n\n")[:-1]:
        stream.feed(event + b"\n\n")
        if event.startswith(b"data: {"):
            usage = msgspec.json.decode(event[6:])["usage"]
            assert stream.input_tokens == usage["prompt_tokens"]
            assert stream.output_tokens == usage["completion_tokens"]


def test_an_error_followed_by_done_is_no_success() -> None:
    stream = Stream(show_usage=False, show_continuous=False)
    error = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}\n\n'
    assert stream.feed(error + b"data: [DONE]\n\n") == b""
    assert stream.error == EngineError("EngineCore died", "InternalServerError", None, 500)
    assert not stream.error.is_clients


def test_comments_pass_and_text_that_looks_like_usage_stays() -> None:
    text = b'data: {"choices":[{"index":0,"delta":{"content":",\\"usage\\":{\\"prompt_tokens\\":9}"}}]'
    body = b": keep-alive\n\n" + text + b',"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1}}\n\n'
    stream = Stream(show_usage=False, show_continuous=False)
    assert stream.feed(body) == b": keep-alive\n\n" + text + b"}\n\n"
    assert (stream.input_tokens, stream.output_tokens) == (3, 1)


def test_usage_of_several_choices_is_summed_with_each_prompt_once() -> None:
    def event(index: int, prompt: int, completion: int) -> bytes:
        return (
            b'data: {"choices":[{"index":%d,"text":"x"}],"usage":{"prompt_tokens":%d,"total_tokens":0,'
            b'"completion_tokens":%d}}\n\n' % (index, prompt, completion)
        )

    stream = Stream(show_usage=False, show_continuous=False, choices=4, n=2)
    for index, prompt, completion in [(0, 5, 1), (1, 5, 1), (2, 7, 1), (0, 5, 2), (3, 7, 4)]:
        stream.feed(event(index, prompt, completion))
    assert (stream.input_tokens, stream.output_tokens) == (12, 8)


def test_null_and_missing_usage_count_nothing() -> None:
    stream = Stream(show_usage=False, show_continuous=False)
    stream.feed(b'data: {"choices":[{"index":0}],"usage":null}\n\ndata: {"choices":[{"index":0}]}\n\ndata: [DONE]\n\n')
    assert (stream.input_tokens, stream.output_tokens, stream.events, stream.final) == (0, 0, 2, False)
