"""The HTTP reply to one request, written straight to its client's connection."""

from collections.abc import Callable

from common.errors import ApiError
from gateway import shape
from gateway.client import Client, Headers

STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reply:
    __slots__ = ("_shape", "client", "headers", "started")

    def __init__(
        self, client: Client, request_id: str, error_shape: Callable[[ApiError], bytes] = shape.openai
    ) -> None:
        self._shape = error_shape
        self.client = client
        self.headers: Headers = [(b"x-request-id", request_id.encode())]
        """May be added to until the reply has started."""
        self.started = False

    def whole(self, body: bytes, content_type: bytes = b"application/json", status: int = 200) -> None:
        self.started = True
        head = self.client.head(status, [(b"content-type", content_type), *self.headers], len(body))
        self.client.write(head + body)

    def part(self, data: bytes) -> None:
        """A part of a stream, sent at once; the first one starts the reply."""
        framed = b"%x\r\n%s\r\n" % (len(data), data)
        if self.started:
            self.client.write(framed)
        else:
            self.started = True
            self.client.write(self.client.head(200, [*STREAM, *self.headers], None) + framed)

    def end(self) -> None:
        """The end of a stream."""
        self.client.write(b"0\r\n\r\n")

    def error(self, error: ApiError) -> None:
        if error.retry_after is not None:
            self.headers.append((b"retry-after", str(error.retry_after).encode()))
        self.whole(self._shape(error), status=error.status)
