"""An engine's event stream: tokens counted, and usage that the client did not ask for cut out of the bytes. Pure.

Nothing is decoded on the common path. That works because `,"usage":{` cannot stand inside a JSON string: the quotes
would be escaped. Facts about vLLM 0.32's stream: usage on every chunk is cumulative and per choice, the chunk without
choices sums them; an error comes as `data: {"error": …}` and is followed by `[DONE]`, which is no success.
"""

import re
from typing import Protocol

import msgspec

from common.errors import ApiError
from gateway import shape

USAGE = b',"usage":{'
_USAGE_OBJECT = re.compile(rb',"usage":(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_COUNTS = re.compile(rb',"usage":\{"prompt_tokens":(\d+),"total_tokens":\d+,"completion_tokens":(\d+)')
_INDEX = re.compile(rb'"choices":\[\{"index":(\d+)')
_ABORTED = b'"finish_reason":"abort"'
_ERROR = b'data: {"error":'


class CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """An engine's usage object; null and missing parts count as zero."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class EngineError(msgspec.Struct, frozen=True):
    message: str = "the engine failed"
    type: str | None = None
    param: str | None = None
    code: int | str | None = None

    @property
    def is_clients(self) -> bool:
        """A 4xx in the stream is the request's fault, not the node's."""
        return isinstance(self.code, int) and 400 <= self.code < 500


class _ErrorEvent(msgspec.Struct, frozen=True):
    error: EngineError


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The events that are whole, and the beginning of the next."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    *events, rest = data.split(b"\n\n")
    return [event + b"\n\n" for event in events], rest


class ReplyStream(Protocol):
    """One streamed reply, of any endpoint. Tokens are cumulative."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    events: int
    final: bool
    """The engine has given its own sum."""
    done: bool
    aborted: bool
    error: "EngineError | None"

    @property
    def estimated(self) -> bool:
        """Until `final`, tokens are a guess; `text` is then what can be counted."""

    @property
    def told_prompt(self) -> bool:
        """The engine has told the prompt's size."""

    @property
    def text(self) -> bytes: ...
    def feed(self, data: bytes) -> bytes: ...
    def told(self, error: ApiError) -> bytes: ...


class Stream:
    """One reply. `feed` takes the bytes as they come, cut anywhere, and answers the bytes for the client."""

    estimated = False
    text = b""

    @property
    def told_prompt(self) -> bool:
        return self.input_tokens > 0

    __slots__ = (
        "_choices",
        "_n",
        "_per_choice",
        "_rest",
        "_show_continuous",
        "_show_usage",
        "aborted",
        "cached_tokens",
        "done",
        "error",
        "events",
        "final",
        "input_tokens",
        "output_tokens",
    )

    def __init__(self, *, show_usage: bool, show_continuous: bool, choices: int = 1, n: int = 1) -> None:
        self._show_usage = show_usage
        self._show_continuous = show_continuous
        self._choices = choices
        self._n = n
        self._per_choice: dict[int, tuple[int, int]] = {}
        self._rest = b""
        self.input_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.events = 0
        """Events with choices, whatever they hold."""
        self.final = False
        """The engine has given its own sum."""
        self.done = False
        self.aborted = False
        self.error: EngineError | None = None

    def told(self, error: ApiError) -> bytes:
        """An error as an event of this stream."""
        return shape.openai_event(error)

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data = self._rest + data
        if data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
            self._rest = b""
            return self._event(data)
        events, self._rest = split(data)
        return b"".join([self._event(event) for event in events])

    def _event(self, event: bytes) -> bytes:
        at = event.rfind(USAGE)
        if at >= 0:
            return self._with_usage(event, at)
        if event.startswith(_ERROR):
            self.error = _decode_error(event)
            return b""
        if event == b"data: [DONE]\n\n":
            self.done = True
            # after an error it would read as success; after an abort the caller decides how the stream goes on
            return b"" if self.error or self.aborted else event
        if event.startswith(b"data:"):
            self.events += 1
        return event

    def _with_usage(self, event: bytes, at: int) -> bytes:
        counts = _COUNTS.match(event, at)
        if b'"choices":[]' in event:
            self._sum(event, at)
            return event if self._show_usage else b""
        self.events += 1
        if counts is None:
            whole = _USAGE_OBJECT.match(event, at)
            usage = msgspec.json.decode(whole[1], type=Usage) if whole else Usage()
            self._count(event, usage.prompt_tokens or 0, usage.completion_tokens or 0)
        else:
            self._count(event, int(counts[1]), int(counts[2]))
        if _ABORTED in event:
            self.aborted = True
            return b""
        if self._show_continuous:
            return event
        whole = _USAGE_OBJECT.match(event, at)
        return event if whole is None else event[:at] + event[whole.end() :]

    def _count(self, event: bytes, prompt: int, completion: int) -> None:
        if self._choices == 1:
            self.input_tokens, self.output_tokens = prompt, completion
            return
        found = _INDEX.search(event)
        self._per_choice[int(found[1]) if found else 0] = (prompt, completion)
        prompts = {index // self._n: counted for index, (counted, _) in self._per_choice.items()}
        self.input_tokens = sum(prompts.values())
        self.output_tokens = sum(counted for _, counted in self._per_choice.values())

    def _sum(self, event: bytes, at: int) -> None:
        whole = _USAGE_OBJECT.match(event, at)
        if whole is None:
            return
        usage = msgspec.json.decode(whole[1], type=Usage)
        self.input_tokens = usage.prompt_tokens or 0
        self.output_tokens = usage.completion_tokens or 0
        self.cached_tokens = min(usage.cached_tokens, self.input_tokens)
        self.final = True


def _decode_error(event: bytes) -> EngineError:
    try:
        return msgspec.json.decode(event[6:], type=_ErrorEvent).error
    except (msgspec.DecodeError, msgspec.ValidationError):
        return EngineError()
