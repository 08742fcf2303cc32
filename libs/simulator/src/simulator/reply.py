"""Responses that are written past aiohttp's own, whose header names and order are not the engine's."""

import asyncio
import uuid

from aiohttp import web

from simulator.wire import Wire, head

JSON = "application/json"


class Sent(web.StreamResponse):
    """Tells aiohttp that everything was written, and whether the connection may be used again."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def transport(request: web.BaseRequest) -> asyncio.Transport:
    """The connection; a request whose client is gone already ends here."""
    if request.transport is None:
        raise asyncio.CancelledError
    return request.transport


def request_id(request: web.BaseRequest) -> str:
    """The id given, or a new one: the response carries it in both cases."""
    return request.headers.get("x-request-id") or uuid.uuid4().hex


def _closing(request: web.BaseRequest) -> list[tuple[str, str]]:
    return [] if request.keep_alive else [("connection", "close")]


def stream_head(request: web.BaseRequest) -> bytes:
    """Head of an event stream."""
    return head(
        200,
        [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("vary", "Origin"),
            ("x-request-id", request_id(request)),
            *_closing(request),
            ("transfer-encoding", "chunked"),
        ],
    )


def whole(request: web.BaseRequest, body: bytes, status: int = 200, content_type: str = JSON, allow: str = "") -> bytes:
    """Head and body of any other response."""
    headers = [("allow", allow)] if allow else []
    headers.append(("content-length", str(len(body))))
    if content_type:
        headers.append(("content-type", content_type))
    headers += [("vary", "Origin"), ("x-request-id", request_id(request)), *_closing(request)]
    return head(status, headers) + body


def answer(request: web.BaseRequest, body: bytes, status: int = 200, content_type: str = JSON, allow: str = "") -> Sent:
    """Write a whole response."""
    Wire(transport(request)).send(whole(request, body, status, content_type, allow))
    return Sent(request.keep_alive)


def unauthorized(request: web.BaseRequest) -> Sent:
    """What vLLM's key check answers: it sits before everything that would add headers."""
    body = b'{"error":"Unauthorized"}'
    Wire(transport(request)).send(
        head(401, [("content-length", str(len(body))), ("content-type", JSON), *_closing(request)]) + body
    )
    return Sent(request.keep_alive)
