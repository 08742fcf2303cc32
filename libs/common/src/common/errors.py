"""The errors that reach a caller, each with its `code` and HTTP `status`.

ApiError
├── InvalidRequest        400 invalid_request (param names the field)
├── InvalidApiKey         401 invalid_api_key
├── Forbidden             403 model_not_allowed, tenant_suspended, forbidden
├── NotFound              404 not_found, model_not_found
├── MethodNotAllowed      405 method_not_allowed
├── Conflict              409 conflict
├── RequestTooLarge       413 request_too_large
├── Overloaded            429 overloaded, rate_limit_exceeded, insufficient_quota
├── UpstreamError         502 upstream_error
├── NoCapacity            503 no_capacity
│   └── Unavailable       503 unavailable (a dependency of ours; the bus delays the message and tries again)
└── UpstreamTimeout       504 upstream_timeout
Unprocessable             an event that can never work: parked, not retried
SettingsError             stops the boot
"""

import msgspec

LONGEST = 300
"""Characters of a message that repeats what a caller sent."""


class ApiError(Exception):
    status = 500
    code = "internal_error"
    type = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after = retry_after
        """Seconds, for the `retry-after` header."""


class InvalidRequest(ApiError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class InvalidApiKey(ApiError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class Forbidden(ApiError):
    status, code, type = 403, "forbidden", "permission_error"


class NotFound(ApiError):
    status, code, type = 404, "not_found", "invalid_request_error"


class MethodNotAllowed(ApiError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class Conflict(ApiError):
    status, code, type = 409, "conflict", "invalid_request_error"


class RequestTooLarge(ApiError):
    status, code, type = 413, "request_too_large", "invalid_request_error"


class Overloaded(ApiError):
    status, code, type = 429, "overloaded", "rate_limit_error"


class UpstreamError(ApiError):
    status, code, type = 502, "upstream_error", "server_error"


class NoCapacity(ApiError):
    status, code, type = 503, "no_capacity", "server_error"


class Unavailable(NoCapacity):
    code = "unavailable"


class UpstreamTimeout(ApiError):
    status, code, type = 504, "upstream_timeout", "server_error"


class Unprocessable(Exception):
    """An event that can never be handled as it is; `str(error)` is the reason that an operator reads."""


class SettingsError(Exception):
    """A missing or wrong setting; names the variable, never its value."""


class ErrorBody(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct, frozen=True):
    """OpenAI's error shape."""

    error: ErrorBody


def reply_of(error: ApiError) -> ErrorReply:
    return ErrorReply(ErrorBody(error.message, error.type, error.param, error.code))


def invalid(error: msgspec.ValidationError | msgspec.DecodeError) -> InvalidRequest:
    """Name the field: msgspec says `Expected `int`, got `str` - at `$.max_tokens``."""
    text, _, path = str(error).partition(" - at `")
    param = path.removeprefix("key` in `").removesuffix("`").removeprefix("$").removeprefix(".")
    return InvalidRequest(text if len(text) <= LONGEST else f"{text[:LONGEST]}…", param=param or named_field(text))


def named_field(text: str) -> str | None:
    """The field that msgspec's message is about when it has no path: one that is missing, or unknown."""
    _, found, rest = text.partition(" field `")
    return rest.split("`")[0] if found else None
