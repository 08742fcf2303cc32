"""Usage objects of every shape, as the one that is billed. Pure."""

import msgspec

from gateway.sse import CachedTokens, Usage


class _Reply(msgspec.Struct, frozen=True):
    usage: Usage | None = None


class ResponsesUsage(msgspec.Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: CachedTokens | None = None

    def billed(self) -> Usage:
        return Usage(self.input_tokens, self.output_tokens, self.input_tokens_details)


class MessagesUsage(msgspec.Struct, frozen=True):
    """Here `input_tokens` is only what neither came from the cache nor was written to it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def billed(self) -> Usage:
        cached = self.cache_read_input_tokens or 0
        whole = (self.input_tokens or 0) + cached + (self.cache_creation_input_tokens or 0)
        return Usage(whole, self.output_tokens, CachedTokens(cached))


class _Response(msgspec.Struct, frozen=True):
    usage: ResponsesUsage | None = None


class _Message(msgspec.Struct, frozen=True):
    usage: MessagesUsage | None = None


def of_reply(body: bytes) -> Usage:
    """Of chat completions, completions, embeddings, rerank and score. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(body, type=_Reply).usage or Usage()


def of_response(body: bytes) -> Usage:
    usage = msgspec.json.decode(body, type=_Response).usage
    return Usage() if usage is None else usage.billed()


def of_message(body: bytes) -> Usage:
    usage = msgspec.json.decode(body, type=_Message).usage
    return Usage() if usage is None else usage.billed()


def of_nothing(body: bytes) -> Usage:
    """Of what is not billed; the body must be JSON all the same."""
    msgspec.json.decode(body, type=msgspec.Raw)
    return Usage()
