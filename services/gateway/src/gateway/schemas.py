"""What the inference endpoints take and answer, for the OpenAPI document.

A request extends what the gateway checks of it; fields that are not named here go to the engine as they are.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway import known

Temperature = Annotated[float, Meta(ge=0, le=2)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Json = dict[str, Any]  # Any: a JSON object whose inside is the engine's or the client's


class ChatMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Json] | None = None


class ChatCompletionRequest(known.Chat, frozen=True, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    response_format: Json | None = None
    logprobs: bool | None = None


class CompletionRequest(known.Completion, frozen=True, kw_only=True):
    prompt: str | list[str | known.Token | list[known.Token]]
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    echo: bool | None = None


class PromptTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: Json
    finish_reason: str | None


class ChatCompletion(msgspec.Struct, frozen=True):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    finish_reason: str | None


class Completion(msgspec.Struct, frozen=True):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class EmbeddingRequest(known.Embedding, frozen=True, kw_only=True):
    input: str | list[str | known.Token | list[known.Token]]
    encoding_format: Literal["float", "base64"] | None = None


class Embedding(msgspec.Struct, frozen=True):
    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class Embeddings(msgspec.Struct, frozen=True):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: Usage


class ResponseRequest(known.Responses, frozen=True, kw_only=True):
    """`store` is always false; `previous_response_id` and `background` are refused."""

    input: str | list[Json]
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    tools: list[Json] | None = None
    text: Json | None = None


class ResponseUsage(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: PromptTokensDetails | None = None


class Response(msgspec.Struct, frozen=True):
    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: str
    output: list[Json]
    usage: ResponseUsage | None


class MessageParam(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Json]


class CountTokensRequest(known.CountTokens, frozen=True, kw_only=True):
    messages: Annotated[list[MessageParam], Meta(min_length=1)]
    system: str | list[Json] | None = None
    tools: list[Json] | None = None


class MessageRequest(known.Messages, frozen=True, kw_only=True):
    messages: Annotated[list[MessageParam], Meta(min_length=1)]
    system: str | list[Json] | None = None
    temperature: Fraction | None = None
    stop_sequences: list[str] | None = None
    tools: list[Json] | None = None


class MessageUsage(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Message(msgspec.Struct, frozen=True):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Json]
    usage: MessageUsage
    stop_reason: str | None = None


class TokenCount(msgspec.Struct, frozen=True):
    input_tokens: int


class RerankRequest(known.Rerank, frozen=True, kw_only=True):
    query: str
    documents: str | list[str]


class RankedDocument(msgspec.Struct, frozen=True):
    index: int
    relevance_score: float


class Ranking(msgspec.Struct, frozen=True):
    id: str
    model: str
    results: list[RankedDocument]
    usage: Usage


class ScoreRequest(known.Score, frozen=True, kw_only=True):
    text_1: str | list[str]
    text_2: str | list[str]


class ScoredPair(msgspec.Struct, frozen=True):
    index: int
    score: float


class Scores(msgspec.Struct, frozen=True):
    object: Literal["list"]
    model: str
    data: list[ScoredPair]
    usage: Usage


class TokenizeRequest(known.Tokenize, frozen=True, kw_only=True):
    """`messages` may be there instead of `prompt`: their template is applied first."""

    prompt: str
    return_token_strs: bool | None = None


class Tokens(msgspec.Struct, frozen=True):
    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeRequest(known.Detokenize, frozen=True, kw_only=True):
    pass


class Text(msgspec.Struct, frozen=True):
    prompt: str
