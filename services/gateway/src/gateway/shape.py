"""Errors in the shapes of the APIs that are spoken here. Pure."""

import msgspec

from common.errors import ApiError, ErrorBody, reply_of

_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


class AnthropicError(msgspec.Struct, frozen=True):
    type: str
    message: str


class AnthropicReply(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    error: AnthropicError


class ErrorEvent(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """Of the Responses API; `error` beside it is what makes OpenAI's clients raise."""

    code: str | None
    message: str
    param: str | None
    sequence_number: int
    error: ErrorBody


def openai(error: ApiError) -> bytes:
    return msgspec.json.encode(reply_of(error))


def openai_event(error: ApiError) -> bytes:
    return b"data: " + openai(error) + b"\n\n"


def anthropic(error: ApiError) -> bytes:
    """Anthropic's shape has no place for the field: the message begins with it."""
    if error.code in ("overloaded", "no_capacity", "unavailable"):
        kind = "overloaded_error"
    elif error.status >= 500:
        kind = _ANTHROPIC.get(error.status, "api_error")
    else:
        kind = _ANTHROPIC.get(error.status, "invalid_request_error")
    message = error.message if error.param is None else f"{error.param}: {error.message}"
    return msgspec.json.encode(AnthropicReply(AnthropicError(kind, message)))


def anthropic_event(error: ApiError) -> bytes:
    return b"event: error\ndata: " + anthropic(error) + b"\n\n"


def responses_event(error: ApiError, sequence_number: int = 0) -> bytes:
    body = reply_of(error).error
    event = ErrorEvent(error.code, error.message, error.param, sequence_number, body)
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
