"""How a reply whose engine was lost goes on at another: what must hold, what to ask for, in which shape it comes. Pure.

By token ids, never by text: text tokenizes anew, so the model would see other tokens (measured on vLLM 0.32: equal in
38 of 38 cuts by ids, in 1 by text). Frequency and presence penalties count generated tokens only, tool calls and
structured output are parsed from the reply's beginning: such replies end with an error instead.
"""

import re

import msgspec

from gateway.body import Prepared
from gateway.kept import Kept
from gateway.sse import Usage

SAMPLING = (
    "model",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "repetition_penalty",
    "length_penalty",
    "stop_token_ids",
    "ignore_eos",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "cache_salt",
)
"""What carries over to `/v1/completions` as it is."""

OBSTACLES = (
    "tools",
    "functions",
    "structured_outputs",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "logprob_token_ids",
    "echo",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "suffix",
    "best_of",
    "thinking_token_budget",
    "repetition_detection",
    "watermarking",
    "prompt_embeds",
    "mm_payload",
    "audio",
)
_NEUTRAL = (b"null", b"false", b"0", b"0.0", b"[]", b'""', b"{}", b"1")
_MEDIA = re.compile(rb'"(?:image|audio|video|input_audio|file)')
COMPLETION_DEFAULT = 16
"""Tokens of a completion that names no limit (OpenAI's default, vLLM's too)."""


class _Choice(msgspec.Struct, frozen=True):
    text: str = ""
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: msgspec.Raw = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None


class _Named(msgspec.Struct, frozen=True):
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""


def possible(prepared: Prepared, endpoint: str) -> bool:
    """Whether a reply to this request could go on elsewhere; then its ids are worth keeping."""
    if endpoint not in ("chat.completions", "completions") or not prepared.stream or prepared.choices != 1:
        return False
    fields = prepared.fields
    for name in OBSTACLES:
        value = fields.get(name)
        if value is not None and bytes(value) not in _NEUTRAL:
            return False
    form = fields.get("response_format")
    if form is not None and bytes(form) != b"null" and b'"text"' not in bytes(form):
        return False
    messages = fields.get("messages")
    return messages is None or _MEDIA.search(messages) is None


def shows_ids(prepared: Prepared) -> bool:
    """The client asked for the ids itself."""
    return bytes(prepared.fields.get("return_token_ids", b"")) == b"true"


def with_ids(prepared: Prepared) -> bytes:
    """The request's body, asking for ids."""
    if "return_token_ids" not in prepared.fields:
        return prepared.body[:-1] + b',"return_token_ids":true}'  # it is an object with a model in it
    return msgspec.json.encode({**prepared.fields, "return_token_ids": True})


class Rest:
    """What is left of a broken reply. `body` is for `/v1/completions`; None when no token is left to generate."""

    def __init__(self, prepared: Prepared, endpoint: str, broken: Kept, max_model_len: int) -> None:
        self.prepared = prepared
        self.endpoint = endpoint
        self.ids = broken.ids
        self.prompt_ids = broken.prompt_ids or b""
        self.named = msgspec.json.decode(broken.first[6:], type=_Named)
        self.input_tokens = _count(self.prompt_ids)
        self.output_tokens = _count(self.ids)
        self.cached_tokens = broken.cached_tokens
        left = self._limit(max_model_len) - self.output_tokens
        self.finished = broken.finished or left <= 0
        self.body = None if self.finished else self._body(left)
        self._usage_shown = broken.final
        if self.finished:
            self.output_tokens = broken.output_tokens  # tokens without text count too, and none is generated again

    def _limit(self, max_model_len: int) -> int:
        for name in ("max_completion_tokens", "max_tokens"):
            value = self.prepared.fields.get(name)
            if value is not None and bytes(value) != b"null":
                return int(bytes(value))
        if self.endpoint == "completions":
            return COMPLETION_DEFAULT
        return max(max_model_len - self.input_tokens, 0)

    def _body(self, left: int) -> bytes:
        fields: dict[str, object] = {
            name: self.prepared.fields[name] for name in SAMPLING if name in self.prepared.fields
        }
        least = self.prepared.fields.get("min_tokens")
        if least is not None and bytes(least).isdigit():
            fields["min_tokens"] = min(max(int(bytes(least)) - self.output_tokens, 0), left)
        together = self.prompt_ids + (b"," if self.ids else b"") + self.ids
        return msgspec.json.encode(
            {
                **fields,
                "prompt": msgspec.Raw(b"[" + together + b"]"),
                "max_tokens": left,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                "return_token_ids": True,
            }
        )

    def closing(self) -> bytes:
        """The end of a reply of which no token is missing."""
        usage = b""
        if self.prepared.show_usage and not self._usage_shown:
            usage = _event({**self.name(), "choices": [], "usage": self.usage(0)})
        return usage + b"data: [DONE]\n\n"

    def usage(self, generated: int) -> dict[str, int]:
        output = self.output_tokens + generated
        return {
            "prompt_tokens": self.input_tokens,
            "total_tokens": self.input_tokens + output,
            "completion_tokens": output,
        }

    def name(self) -> dict[str, object]:
        named = self.named
        return {"id": named.id, "object": named.object, "created": named.created, "model": named.model}


class Continued(Kept):
    """The rest of the reply, which an engine gives as a completion, in the shape of the reply's beginning."""

    __slots__ = ("rest",)

    def __init__(self, rest: Rest) -> None:
        super().__init__(show_usage=True, show_continuous=True, show_ids=True)
        self.rest = rest
        self.prompt_ids = rest.prompt_ids
        self.first = _event(rest.name())
        self.input_tokens = rest.input_tokens
        self.cached_tokens = rest.cached_tokens
        self.output_tokens = rest.output_tokens
        if rest.ids:
            self._ids.append(rest.ids)

    def _event(self, event: bytes) -> bytes:
        seen = super()._event(event)
        rest = self.rest
        if not event.startswith(b"data: {") or self.error is not None or self.aborted:
            return seen
        chunk = msgspec.json.decode(event[6:], type=_Chunk)
        generated = (chunk.usage and chunk.usage.completion_tokens) or 0
        # the engine sees the delivered tokens as a part of its prompt
        self.input_tokens, self.output_tokens = rest.input_tokens, rest.output_tokens + generated
        self.cached_tokens = rest.cached_tokens
        body = rest.name()
        if not chunk.choices:
            return _event({**body, "choices": [], "usage": rest.usage(generated)}) if rest.prepared.show_usage else b""
        body["choices"] = [self._choice(chunk.choices[0])]
        if rest.prepared.show_continuous:
            body["usage"] = rest.usage(generated)
        return _event(body)

    def _choice(self, choice: _Choice) -> dict[str, object]:
        ids = choice.token_ids if shows_ids(self.rest.prepared) else None
        if self.rest.endpoint == "completions":
            return {
                "index": 0,
                "text": choice.text,
                "logprobs": None,
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
                "prompt_token_ids": None,
                "token_ids": ids,
            }
        made: dict[str, object] = {"index": 0, "delta": {"content": choice.text}, "logprobs": None}
        made["finish_reason"] = choice.finish_reason
        if choice.finish_reason is not None:
            made["stop_reason"] = choice.stop_reason
        return {**made, "token_ids": ids}


def _count(ids: bytes) -> int:
    return ids.count(b",") + 1 if ids else 0


def _event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
