"""Streams of named events, those of `/v1/responses` and `/v1/messages`: usage read, delivered text kept. Pure.

Same attributes as `sse.Stream`, and neither has usage on every event, so what a client that hangs up has received is
counted from its text. Facts about vLLM 0.32: `/v1/responses` ends in `response.completed` even when the reply is
incomplete, says `response.created` before the prefill, and has no `[DONE]`; `/v1/messages` has the prompt's size in
`message_start`, all of it in `message_delta`, and after any failure one `event: error` and no `message_stop`.
"""

from abc import ABC, abstractmethod

import msgspec

from common.errors import ApiError
from gateway import shape
from gateway.sse import EngineError, split
from gateway.usage import MessagesUsage, ResponsesUsage

BYTES_A_TOKEN = 4
_HELD = (b"response.created", b"response.in_progress", b"response.queued")
_ENDS = (b"response.completed", b"response.incomplete", b"response.failed")
_PREFIX = b"event: "


class _Delta(msgspec.Struct, frozen=True):
    delta: str = ""


class _Failure(msgspec.Struct, frozen=True):
    message: str = "the engine failed"
    code: int | str | None = None


class _Response(msgspec.Struct, frozen=True):
    usage: ResponsesUsage | None = None
    error: _Failure | None = None


class _End(msgspec.Struct, frozen=True):
    response: _Response


class _Block(msgspec.Struct, frozen=True):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _BlockDelta(msgspec.Struct, frozen=True):
    delta: _Block


class _Message(msgspec.Struct, frozen=True):
    usage: MessagesUsage | None = None


class _MessageStart(msgspec.Struct, frozen=True):
    message: _Message


class _Stop(msgspec.Struct, frozen=True):
    stop_reason: str | None = None


class _MessageDelta(msgspec.Struct, frozen=True):
    delta: _Stop
    usage: MessagesUsage | None = None


class _ErrorEvent(msgspec.Struct, frozen=True):
    error: EngineError | None = None


class Events(ABC):
    """One reply. `feed` takes the bytes as they come, cut anywhere, and answers the bytes for the client."""

    __slots__ = (
        "_held",
        "_rest",
        "_seen",
        "_text",
        "aborted",
        "cached_tokens",
        "done",
        "error",
        "events",
        "final",
        "input_tokens",
        "output_tokens",
        "told_prompt",
    )
    estimated = True
    """Until `final`, tokens are a guess: the prompt's by its size, the reply's at least one an event."""

    def __init__(self, prompt_bytes: int) -> None:
        self._held = b""
        self._rest = b""
        self._seen = 0
        self.input_tokens = max(1, prompt_bytes // BYTES_A_TOKEN)
        self.told_prompt = False
        self.cached_tokens = 0
        self.output_tokens = 0
        self.events = 0
        """Events that the client got."""
        self.final = False
        self.done = False
        self.aborted = False
        self.error: EngineError | None = None
        self._text = bytearray()

    @property
    def text(self) -> bytes:
        """What was delivered, as one text."""
        return bytes(self._text)

    def feed(self, data: bytes) -> bytes:
        events, self._rest = split(self._rest + data)
        return b"".join([self._event(event) for event in events])

    @abstractmethod
    def told(self, error: ApiError) -> bytes:
        """An error as an event of this stream."""

    def _event(self, event: bytes) -> bytes:
        try:
            return self._read(event)
        except msgspec.MsgspecError:
            self.error = EngineError("the engine sent an event that is not what its name says")
            return b""

    def _read(self, event: bytes) -> bytes:
        if not event.startswith(_PREFIX):
            if event.startswith(b'data: {"error"'):
                self.error = msgspec.json.decode(event[6:], type=_ErrorEvent).error or EngineError()
                return b""
            return event
        name, _, rest = event[len(_PREFIX) :].partition(b"\n")
        shown = self._named(name, event, rest[6:])
        self._seen += 1
        if not shown:
            return b""
        self.events += 1
        if self._held:
            shown, self._held = self._held + shown, b""
        return shown

    @abstractmethod
    def _named(self, name: bytes, event: bytes, data: bytes) -> bytes:
        """What the client gets of an event of that name; empty for nothing."""

    def _delivered(self, text: str) -> None:
        self._text += text.encode("utf-8", "replace")
        self.output_tokens += 1


class ResponsesStream(Events):
    __slots__ = ()

    def told(self, error: ApiError) -> bytes:
        return shape.responses_event(error, self._seen)

    def _named(self, name: bytes, event: bytes, data: bytes) -> bytes:
        if name.endswith(b".delta"):
            self._delivered(msgspec.json.decode(data, type=_Delta).delta)
        elif name in _HELD:
            # until a token comes, another node may still be tried
            self._held += event
            return b""
        elif name in _ENDS:
            return self._ended(name, event, msgspec.json.decode(data, type=_End))
        elif name == b"error":
            self.error = msgspec.json.decode(data, type=EngineError)
            return b""
        return event

    def _ended(self, name: bytes, event: bytes, end: _End) -> bytes:
        response = end.response
        if response.usage is not None:
            usage = response.usage.billed()
            self.input_tokens, self.output_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
            self.cached_tokens = min(usage.cached_tokens, self.input_tokens)
            self.final = True
        if name == b"response.failed":
            failure = response.error or _Failure()
            self.error = EngineError(failure.message, code=failure.code)
            return b""
        self.done = True
        return event


class MessagesStream(Events):
    __slots__ = ()

    def told(self, error: ApiError) -> bytes:
        return shape.anthropic_event(error)

    def _named(self, name: bytes, event: bytes, data: bytes) -> bytes:
        if name == b"content_block_delta":
            block = msgspec.json.decode(data, type=_BlockDelta).delta
            self._delivered(block.text or block.thinking or block.partial_json)
        elif name == b"message_start":
            usage = msgspec.json.decode(data, type=_MessageStart).message.usage
            if usage is not None:
                self.input_tokens, self.told_prompt = usage.billed().prompt_tokens or 0, True
        elif name == b"message_delta":
            return self._summed(event, msgspec.json.decode(data, type=_MessageDelta))
        elif name == b"message_stop":
            self.done = True
            return b"" if self.aborted else event
        elif name == b"error":
            self.error = msgspec.json.decode(data, type=_ErrorEvent).error or EngineError()
            return b""
        return event

    def _summed(self, event: bytes, delta: _MessageDelta) -> bytes:
        if delta.usage is not None:
            usage = delta.usage.billed()
            self.input_tokens, self.output_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
            self.cached_tokens = min(usage.cached_tokens, self.input_tokens)
            self.final = True
        # a stopping engine gives no reason
        self.aborted = delta.delta.stop_reason is None
        return b"" if self.aborted else event
