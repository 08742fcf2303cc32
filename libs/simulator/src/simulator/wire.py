"""Bytes onto one connection, as uvicorn writes them: lower-case headers in its order, chunked events."""

import asyncio
import email.utils
import http
import os
import socket
import struct
import time
from collections import deque
from typing import Final

# Beyond this the client has stopped reading; further events wait here, so that "delivered" stays near the truth.
_HIGH_WATER: Final = 64 * 1024
_RETRY_S: Final = 0.02

_stamp: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    global _stamp  # a cache of the current second's text, nothing else
    now = int(time.time())
    if _stamp[0] != now:
        _stamp = (now, email.utils.formatdate(now, usegmt=True).encode())
    return _stamp[1]


def head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """Status line and headers."""
    lines = [b"HTTP/1.1 %d %b\r\ndate: %b\r\nserver: uvicorn\r\n" % (status, _reason(status), _date())]
    lines.extend(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
    lines.append(b"\r\n")
    return b"".join(lines)


def _reason(status: int) -> bytes:
    return http.HTTPStatus(status).phrase.encode()


class Wire:
    """Counts as delivered what was handed to the socket."""

    __slots__ = (
        "_coalesce",
        "_descriptor",
        "_drained",
        "_group",
        "_loop",
        "_outbox",
        "_pumping",
        "_split",
        "_transport",
        "delivered",
        "writes",
    )

    def __init__(self, transport: asyncio.Transport, split: int = 0, coalesce: int = 1) -> None:
        self._transport = transport
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._loop = asyncio.get_running_loop()
        self._split = split
        self._coalesce = coalesce
        self._group: list[tuple[bytes, int]] = []
        self._outbox: deque[tuple[bytes, int]] = deque()
        self._pumping = False
        self._drained: asyncio.Future[None] | None = None
        self.delivered = 0
        self.writes = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._outbox and not self._group

    def send(self, data: bytes, tokens: int = -1) -> None:
        """Write `data`; once it is out, `tokens` (cumulative, unless negative) count as delivered."""
        self.writes += 1
        transport = self._transport
        if self._outbox or self._split or transport.get_write_buffer_size() > _HIGH_WATER:
            self._queue(data, tokens)
        elif not transport.is_closing() and self._write(data) and tokens >= 0:
            self.delivered = tokens

    def _write(self, data: bytes) -> bool:
        """Hand `data` to the kernel; False if the client is gone."""
        # Past the transport while nothing is queued in it: its write path costs more than the rest of a chunk.
        written = 0
        if not self._transport.get_write_buffer_size():
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                pass
            except ConnectionError:
                return False
        if written < len(data):
            self._transport.write(data[written:])
        return True

    def event(self, data: bytes, tokens: int = -1) -> None:
        """Write one event as one HTTP chunk."""
        chunk = b"%x\r\n%b\r\n" % (len(data), data)
        if self._coalesce == 1:
            self.send(chunk, tokens)
            return
        self._group.append((chunk, tokens))
        if len(self._group) >= self._coalesce:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered for one write."""
        if self._group:
            group, self._group = self._group, []
            self.send(b"".join(data for data, _ in group), max(tokens for _, tokens in group))

    def finish(self) -> None:
        """End the chunked body."""
        self.flush()
        self.send(b"0\r\n\r\n")

    def _queue(self, data: bytes, tokens: int) -> None:
        size = self._split or len(data)
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        self._outbox.extend((piece, -1) for piece in pieces[:-1])
        self._outbox.append((pieces[-1], tokens))
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """One piece in each turn of the loop, so that each is a packet of its own."""
        transport = self._transport
        if transport.is_closing():
            self._outbox.clear()
        elif transport.get_write_buffer_size() > _HIGH_WATER:
            self._loop.call_later(_RETRY_S, self._pump)
            return
        else:
            data, tokens = self._outbox.popleft()
            if self._write(data) and tokens >= 0:
                self.delivered = tokens
        if self._outbox:
            self._loop.call_soon(self._pump)
            return
        self._pumping = False
        if self._drained and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Wait until all was handed to the socket."""
        if self._outbox:
            self._drained = self._loop.create_future()
            await self._drained

    def close(self) -> None:
        """End the connection after what was written, as a dying process does."""
        self._transport.close()

    def reset(self) -> None:
        """End the connection with RST."""
        # The option belongs to the open file, so it is set on a copy of the descriptor, which every loop allows.
        with socket.socket(fileno=os.dup(self._descriptor)) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
