"""What the gateway reads of each endpoint's body: the fields it acts on, their limits, and which make the prompt. Pure.

Shapes of vLLM 0.32. Everything that is not named here goes to the engine as the bytes in which it came.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeAlias

import msgspec
from msgspec import Meta

from common.errors import InvalidRequest

Fields: TypeAlias = dict[str, msgspec.Raw]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=100_000_000)]
Token: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]

FORCED_STREAM_OPTIONS = msgspec.Raw(b'{"include_usage":true,"continuous_usage_stats":true}')
FALSE = msgspec.Raw(b"false")
NULL = b"null"
_KINDS = {"[": "a list", "{": "an object", '"': "text"}


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Known(msgspec.Struct, frozen=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]

    PROMPT: ClassVar[tuple[str, ...]] = ()
    """Fields that make the prompt."""

    def check(self, fields: Fields) -> None:
        """Raises InvalidRequest for what the types do not say."""

    def rewrite(self, fields: Fields) -> None:
        """Set what the engine must be told whatever the client wants."""

    @property
    def streams(self) -> bool:
        return False

    @property
    def wants_usage(self) -> bool:
        """The client asked for the final usage chunk."""
        return False

    @property
    def wants_continuous_usage(self) -> bool:
        return False

    @property
    def limit(self) -> int | None:
        """Tokens that one choice may have; None when the client set no limit."""
        return 0

    @property
    def per_prompt(self) -> int:
        """Choices for each prompt."""
        return 1

    def prompts(self, fields: Fields) -> int:
        return 1


class _Generation(Known, frozen=True):
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Count | None = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_continuous_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    @property
    def limit(self) -> int | None:
        return self.max_tokens

    @property
    def per_prompt(self) -> int:
        return self.n or 1

    def check(self, fields: Fields) -> None:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options is only allowed with stream", param="stream_options")

    def rewrite(self, fields: Fields) -> None:
        if self.stream:
            fields["stream_options"] = FORCED_STREAM_OPTIONS


class Chat(_Generation, frozen=True):
    max_completion_tokens: Count | None = None

    PROMPT: ClassVar[tuple[str, ...]] = ("messages", "tools")

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def check(self, fields: Fields) -> None:
        super().check(fields)
        expect(fields, messages="[")


class Completion(_Generation, frozen=True):
    PROMPT: ClassVar[tuple[str, ...]] = ("prompt",)

    @property
    def limit(self) -> int | None:
        return 16 if self.max_tokens is None else self.max_tokens  # the engine's default

    def check(self, fields: Fields) -> None:
        super().check(fields)
        expect(fields, prompt='["')

    def prompts(self, fields: Fields) -> int:
        """A list of strings or of token lists holds several, a list of numbers is one."""
        if opening(fields["prompt"]) != "[":
            return 1
        prompts = _decode(fields["prompt"], "prompt")
        if not prompts:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return 1 if isinstance(prompts[0], int) else len(prompts)


class Responses(Known, frozen=True):
    stream: bool | None = None
    max_output_tokens: Count | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    instructions: str | None = None

    PROMPT: ClassVar[tuple[str, ...]] = ("input", "instructions", "tools", "previous_input_messages")

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def limit(self) -> int | None:
        return self.max_output_tokens

    def check(self, fields: Fields) -> None:
        """The engine's store knows no tenants: nothing is kept in it, and nothing is read from it."""
        expect(fields, input='["')
        for name in ("previous_response_id", "conversation", "background"):
            if name in fields and bytes(fields[name]) not in (NULL, b"false"):
                raise InvalidRequest(f"{name} is not supported: responses are not stored here", param=name)

    def rewrite(self, fields: Fields) -> None:
        fields["store"] = FALSE
        for name in ("previous_response_id", "conversation", "background"):
            fields.pop(name, None)


class CountTokens(Known, frozen=True):
    PROMPT: ClassVar[tuple[str, ...]] = ("messages", "system", "tools")

    def check(self, fields: Fields) -> None:
        expect(fields, messages="[")


class Messages(CountTokens, frozen=True, kw_only=True):
    max_tokens: Annotated[int, Meta(ge=1, le=100_000_000)]
    stream: bool | None = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def limit(self) -> int | None:
        return self.max_tokens


class Embedding(Known, frozen=True):
    dimensions: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    encoding_format: str | None = None

    PROMPT: ClassVar[tuple[str, ...]] = ("input", "messages")

    def check(self, fields: Fields) -> None:
        if "messages" in fields and "input" not in fields:
            expect(fields, messages="[")
            return
        expect(fields, input='["')
        if opening(fields["input"]) == "[" and not _decode(fields["input"], "input"):
            raise InvalidRequest("the input is empty", param="input")


class Rerank(Known, frozen=True):
    top_n: Count | None = None

    PROMPT: ClassVar[tuple[str, ...]] = ("query", "documents")

    def check(self, fields: Fields) -> None:
        expect(fields, query='"{[', documents='["{')


class Score(Known, frozen=True):
    PROMPT: ClassVar[tuple[str, ...]] = (
        "text_1", "text_2", "queries", "documents", "items", "data_1", "data_2",
    )  # fmt: skip

    def check(self, fields: Fields) -> None:
        first = next((name for name in ("queries", "data_1", "text_1") if name in fields), "text_1")
        second = "text_2" if first == "text_1" else "data_2" if first == "data_1" else "documents"
        if first == "queries" and "items" in fields:
            second = "items"
        expect(fields, **{first: '["{', second: '["{'})


class Tokenize(Known, frozen=True):
    PROMPT: ClassVar[tuple[str, ...]] = ("prompt", "messages")

    def check(self, fields: Fields) -> None:
        if "messages" in fields:
            expect(fields, messages="[")
        else:
            expect(fields, prompt='"')


class Detokenize(Known, frozen=True, kw_only=True):
    tokens: list[Token]

    PROMPT: ClassVar[tuple[str, ...]] = ("tokens",)


def expect(fields: Mapping[str, msgspec.Raw], **openings: str) -> None:
    """Each field must be there and begin with one of the characters; raises InvalidRequest naming it."""
    for name, allowed in openings.items():
        if name not in fields:
            raise InvalidRequest(f"Object missing required field `{name}`", param=name)
        if opening(fields[name]) not in allowed:
            raise InvalidRequest(f"Expected {' or '.join(_KINDS[one] for one in allowed)}", param=name)


def opening(raw: msgspec.Raw) -> str:
    return chr(memoryview(raw)[0])


def _decode(raw: msgspec.Raw, name: str) -> list[str | int | list[int]]:
    try:
        return msgspec.json.decode(raw, type=list[str | int | list[int]])
    except msgspec.ValidationError as error:
        raise InvalidRequest("expected text, token ids, or a list of them", param=name) from error
