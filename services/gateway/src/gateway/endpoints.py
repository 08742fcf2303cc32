"""The table of inference endpoints: every path that reaches an engine, and nothing else does."""

from collections.abc import Callable

import msgspec

from common.errors import ApiError
from gateway import shape, usage
from gateway.body import Endpoint, Prepared
from gateway.reading import MessagesStream, ResponsesStream
from gateway.sse import ReplyStream, Stream, Usage


def _of_chunks(prepared: Prepared) -> ReplyStream:
    return Stream(
        show_usage=prepared.show_usage,
        show_continuous=prepared.show_continuous,
        choices=prepared.choices,
        n=prepared.n,
    )


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    """For clients."""
    engine_path: str
    usage: Callable[[bytes], Usage] = usage.of_reply
    """Of a reply that was not streamed. Raises msgspec.MsgspecError."""
    stream: Callable[[Prepared], ReplyStream] = _of_chunks
    error: Callable[[ApiError], bytes] = shape.openai
    event: Callable[[ApiError], bytes] = shape.openai_event
    """An error in a stream that has not begun to answer."""
    billed: bool = True
    """False: authenticated and placed, but without a usage record, since the engine computes nothing."""


def _same(path: str) -> Spec:
    return Spec(path=path, engine_path=path)


TABLE: dict[Endpoint, Spec] = {
    "chat.completions": _same("/v1/chat/completions"),
    "completions": _same("/v1/completions"),
    "embeddings": _same("/v1/embeddings"),
    "rerank": _same("/v1/rerank"),
    "score": _same("/v1/score"),
    "responses": Spec(
        path="/v1/responses",
        engine_path="/v1/responses",
        usage=usage.of_response,
        stream=lambda prepared: ResponsesStream(prepared.prompt_bytes),
        event=shape.responses_event,
    ),
    "messages": Spec(
        path="/v1/messages",
        engine_path="/v1/messages",
        usage=usage.of_message,
        stream=lambda prepared: MessagesStream(prepared.prompt_bytes),
        error=shape.anthropic,
        event=shape.anthropic_event,
    ),
    "messages.count_tokens": Spec(
        path="/v1/messages/count_tokens",
        engine_path="/v1/messages/count_tokens",
        usage=usage.of_nothing,
        error=shape.anthropic,
        billed=False,
    ),
    "tokenize": Spec(path="/v1/tokenize", engine_path="/tokenize", usage=usage.of_nothing, billed=False),
    "detokenize": Spec(path="/v1/detokenize", engine_path="/detokenize", usage=usage.of_nothing, billed=False),
}
BY_PATH: dict[bytes, Endpoint] = {spec.path.encode(): endpoint for endpoint, spec in TABLE.items()}
