"""Named events, cut anywhere: the same bytes for the client, the same tokens for the ledger."""

import pytest

from gateway.reading import Events, MessagesStream, ResponsesStream

RESPONSE = (
    b'event: response.created\ndata: {"response":{"usage":null},"sequence_number":0,"type":"response.created"}\n\n'
    b'event: response.in_progress\ndata: {"response":{"usage":null},"sequence_number":1}\n\n'
    b'event: response.output_item.added\ndata: {"item":{},"sequence_number":2}\n\n'
    b'event: response.output_text.delta\ndata: {"delta":"\xc3\xa9 \\"a\\n\\n\\"","sequence_number":3}\n\n'
    b'event: response.output_text.delta\ndata: {"delta":" b","sequence_number":4}\n\n'
    b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":8,"input_tokens_details":'
    b'{"cached_tokens":3},"output_tokens":7}},"sequence_number":5}\n\n'
)
MESSAGE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":8,"output_tokens":0}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start"}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"\xc3\xa9 \\"a\\n\\n\\""},"index":0}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":" b"},"index":0}\n\n'
    b'event: message_delta\ndata: {"delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":3,"output_tokens":7,'
    b'"cache_creation_input_tokens":2,"cache_read_input_tokens":3}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
@pytest.mark.parametrize(("kind", "raw"), [(ResponsesStream, RESPONSE), (MessagesStream, MESSAGE)])
def test_how_the_bytes_are_cut_changes_nothing(kind: type[Events], raw: bytes, size: int) -> None:
    stream = kind(40)
    shown = b"".join(stream.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    assert shown == raw
    assert (stream.input_tokens, stream.cached_tokens, stream.output_tokens) == (8, 3, 7)
    assert (stream.done, stream.final, stream.error, stream.aborted) == (True, True, None, False)
    assert stream.text.decode() == 'é "a\n\n" b'


@pytest.mark.parametrize(("kind", "raw"), [(ResponsesStream, RESPONSE), (MessagesStream, MESSAGE)])
def test_a_cut_stream_has_what_was_delivered(kind: type[Events], raw: bytes) -> None:
    stream = kind(40)
    stream.feed(raw[: raw.index(b" b")])
    assert (stream.output_tokens, stream.text.decode(), stream.done, stream.final) == (1, 'é "a\n\n"', False, False)
    assert stream.input_tokens == (10 if kind is ResponsesStream else 8)
    assert stream.told_prompt == (kind is MessagesStream)


def test_nothing_is_shown_before_a_token_may_come() -> None:
    stream = ResponsesStream(4)
    created, progress, item, *_ = [event + b"\n\n" for event in RESPONSE.split(b"\n\n")]
    assert stream.feed(b": keep-alive\n\n" + created) == b": keep-alive\n\n"
    assert (stream.feed(progress), stream.events) == (b"", 0)
    assert stream.feed(item) == created + progress + item
    assert stream.events == 1


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (ResponsesStream, b'event: response.failed\ndata: {"response":{"error":{"code":"x","message":"m"}}}\n\n'),
        (ResponsesStream, b'event: error\ndata: {"type":"error","message":"m","code":"x"}\n\n'),
        (ResponsesStream, b'data: {"error":{"message":"m","code":500}}\n\n'),
        (ResponsesStream, b"event: response.output_text.delta\ndata: {\n\n"),
        (MessagesStream, b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"m"}}\n\n'),
        (MessagesStream, b"event: content_block_delta\ndata: []\n\n"),
    ],
)
def test_an_engines_error_is_kept_from_the_client(kind: type[Events], event: bytes) -> None:
    stream = kind(4)
    assert stream.feed(event) == b""
    assert stream.error is not None


def test_a_message_without_a_reason_was_aborted() -> None:
    stream = MessagesStream(4)
    stream.feed(MESSAGE.replace(b'"max_tokens"', b"null"))
    assert (stream.aborted, stream.final, stream.output_tokens) == (True, True, 7)
