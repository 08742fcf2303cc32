"""The HTTP reply to one request, written straight to its client's connection."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.errors import ApiError
from gateway import shape
from gateway.client import Client, Headers

STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

COMMENT = b": keep-alive\n\n"


class Reply:
    __slots__ = ("_event", "_open", "_shape", "client", "headers", "started")

    def __init__(
        self,
        client: Client,
        request_id: str,
        error_shape: Callable[[ApiError], bytes] = shape.openai,
        error_event: Callable[[ApiError], bytes] = shape.openai_event,
    ) -> None:
        self._shape = error_shape
        self._event = error_event
        self.client = client
        self.headers: Headers = [(b"x-request-id", request_id.encode())]
        """May be added to until the reply has started."""
        self.started = False
        """Some of the answer has been sent."""
        self._open = False
        """The head of a stream has been sent."""

    def whole(self, body: bytes, content_type: bytes = b"application/json", status: int = 200) -> None:
        self.started = True
        head = self.client.head(status, [(b"content-type", content_type), *self.headers], len(body))
        self.client.write(head + body)

    def part(self, data: bytes) -> None:
        """A part of a stream, sent at once; the first one starts the reply."""
        self.started = True
        self._send(data)

    def comment(self) -> None:
        """Tell who waits for a stream that it will come. The status is 200 from now on: errors are events."""
        self._send(COMMENT)

    def _send(self, data: bytes) -> None:
        framed = b"%x\r\n%s\r\n" % (len(data), data)
        if self._open:
            self.client.write(framed)
        else:
            self._open = True
            self.client.write(self.client.head(200, [*STREAM, *self.headers], None) + framed)

    def end(self) -> None:
        """The end of a stream."""
        self.client.write(b"0\r\n\r\n")

    @contextmanager
    def kept_open(self, first: float, every: float) -> Iterator[None]:
        """Comments while the block lasts: after `first` seconds, then `every` so many."""
        loop = asyncio.get_running_loop()
        due: asyncio.TimerHandle

        def comment() -> None:
            nonlocal due
            self.comment()
            due = loop.call_later(every, comment)

        due = loop.call_later(first, comment)
        try:
            yield
        finally:
            due.cancel()

    def error(self, error: ApiError) -> None:
        if self._open:
            self.part(self._event(error))
            self.end()
            return
        if error.retry_after is not None:
            self.headers.append((b"retry-after", str(error.retry_after).encode()))
        self.whole(self._shape(error), status=error.status)
