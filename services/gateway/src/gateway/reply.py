"""The HTTP reply to one request, over ASGI's `send`."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from common.errors import ApiError, reply_of
from common.http import respond

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]  # Any: ASGI's messages
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reply:
    __slots__ = ("_headers", "_send", "started")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._headers: Headers = [(b"x-request-id", request_id.encode())]
        self.started = False

    async def whole(self, body: bytes, content_type: bytes = b"application/json", status: int = 200) -> None:
        self.started = True
        await respond(self._send, status, body, [(b"content-type", content_type), *self._headers])

    async def part(self, data: bytes) -> None:
        """A part of a stream, sent at once; the first one starts the reply."""
        if not self.started:
            self.started = True
            head = {"type": "http.response.start", "status": 200, "headers": [*STREAM, *self._headers]}
            await self._send(head)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of a stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def error(self, error: ApiError) -> None:
        if error.retry_after is not None:
            self._headers.append((b"retry-after", str(error.retry_after).encode()))
        await self.whole(msgspec.json.encode(reply_of(error)), status=error.status)
