"""A tenant's request body, read only as far as needed and made safe for the engine. Pure.

Every other field goes to the engine as the bytes in which it came.
"""

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from common.errors import InvalidRequest, invalid

Endpoint: TypeAlias = Literal["chat.completions", "completions"]
FORCED_STREAM_OPTIONS = msgspec.Raw(b'{"include_usage":true,"continuous_usage_stats":true}')
TRUE = msgspec.Raw(b"true")

STEERING = (
    # what would let a tenant steer the engine or look into another tenant's cache (vLLM 0.32)
    "priority",
    "request_id",
    "kv_transfer_params",
    "ec_transfer_params",
    "use_beam_search",
    "vllm_xargs",
    "stream_interval",
    "cache_salt",
)

Count: TypeAlias = Annotated[int, Meta(ge=0, le=100_000_000)]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _Known(msgspec.Struct, frozen=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None


class _Chat(_Known, frozen=True):
    messages: msgspec.Raw = msgspec.Raw(b"null")


class _Completion(_Known, frozen=True):
    prompt: msgspec.Raw = msgspec.Raw(b"null")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    stream: bool
    show_usage: bool
    """The client asked for the final usage chunk."""
    show_continuous: bool
    """The client asked for usage on every chunk."""
    choices: int
    """Choices that the reply may have: n × prompts."""
    n: int
    max_output: int | None
    """Tokens that all choices together may have; None when the client set no limit."""
    prompt_bytes: int
    """Size of what becomes the prompt, for an estimate."""
    fields: dict[str, msgspec.Raw]
    body: bytes
    """What the engine gets."""


def prepare(raw: bytes, endpoint: Endpoint) -> Prepared:
    """Raises InvalidRequest naming the field."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        known = _DECODE[endpoint](raw)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise invalid(error) from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest("the body is not valid JSON") from error
    options = known.stream_options
    stream = bool(known.stream)
    if options is not None and not stream:
        raise InvalidRequest("stream_options is only allowed with stream", param="stream_options")
    for field in STEERING:
        fields.pop(field, None)
    if stream:
        fields["stream_options"] = FORCED_STREAM_OPTIONS
    include = options is not None and bool(options.include_usage)
    n = known.n or 1
    choices = n * (_prompts(fields["prompt"]) if endpoint == "completions" else 1)
    limit = known.max_tokens if known.max_completion_tokens is None else known.max_completion_tokens
    return Prepared(
        model=known.model,
        stream=stream,
        show_usage=include,
        show_continuous=include and options is not None and bool(options.continuous_usage_stats),
        choices=choices,
        n=n,
        max_output=None if limit is None else limit * choices,
        prompt_bytes=sum(len(memoryview(fields[name])) for name in ("messages", "prompt", "tools") if name in fields),
        fields=fields,
        body=msgspec.json.encode(fields),
    )


def _opening(raw: msgspec.Raw) -> str:
    return chr(memoryview(raw)[0])


def _prompts(raw: msgspec.Raw) -> int:
    """How many prompts: a list of strings or of token lists holds several, a list of numbers is one."""
    if _opening(raw) != "[":
        return 1
    try:
        prompts = msgspec.json.decode(raw, type=list[str | int | list[int]])
    except msgspec.ValidationError as error:
        raise InvalidRequest("expected text, token ids, or a list of them", param="prompt") from error
    if not prompts:
        raise InvalidRequest("the prompt is empty", param="prompt")
    return 1 if isinstance(prompts[0], int) else len(prompts)


def _chat(raw: bytes) -> _Known:
    known = msgspec.json.decode(raw, type=_Chat)
    if _opening(known.messages) != "[":
        raise InvalidRequest("expected a list of messages", param="messages")
    return known


def _completion(raw: bytes) -> _Known:
    known = msgspec.json.decode(raw, type=_Completion)
    if _opening(known.prompt) not in ("[", '"'):
        raise InvalidRequest("expected text or token ids", param="prompt")
    return known


_DECODE: dict[Endpoint, Callable[[bytes], _Known]] = {"chat.completions": _chat, "completions": _completion}
