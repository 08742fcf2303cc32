"""Every error of these routes in the API's shape."""

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from common.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, named_field, reply_of

log = logging.getLogger(__name__)


def told(_: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    body = msgspec.json.encode(reply_of(error))
    return Response(body, status_code=error.status, media_type="application/json", headers=headers)


def bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return told(request, ApiError("internal error"))


def http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own errors, naming the field."""
    if isinstance(error, ValidationException) or error.status_code == 400:
        first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
        detail = str(first.get("message", error.detail)) if isinstance(first, dict) else error.detail
        param = first.get("key") if isinstance(first, dict) else None
        return told(request, InvalidRequest(detail, param=named_field(detail) if param in (None, "data") else param))
    if error.status_code == 404:
        return told(request, NotFound(f"no such path: {request.url.path}"))
    if error.status_code == 405:
        return told(request, MethodNotAllowed(f"{request.method} is not allowed here"))
    other = ApiError(error.detail)
    other.status = error.status_code
    return told(request, other)
