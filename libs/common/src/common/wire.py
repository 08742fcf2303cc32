"""One socket to Redis: commands go out, and their replies come back in the same order."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast

import hiredis

from common.errors import Unavailable

Argument: TypeAlias = str | bytes | int | float
Future: TypeAlias = asyncio.Future[object]
Place: TypeAlias = tuple[str, int]
Lost: TypeAlias = Callable[["Wire", str, Place | None], None]
"""The wire, why, and where the server said that its keys are now."""

ELSEWHERE = ("MOVED ", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN")
"""Errors that this server would answer every command with, for now."""
_MORE = object()


class Wire(asyncio.Protocol):
    def __init__(self, lost: Lost, observe: Callable[[float], None] | None = None) -> None:
        """`lost` is called when the connection has ended other than by `close`."""
        self._tell_lost: Lost | None = lost
        self._observe = observe
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[Future] = deque()
        self._transport: asyncio.Transport | None = None
        self._marked: tuple[Future, float] | None = None
        """A command whose round trip is being measured: one at a time."""
        self._moved: Place | None = None

    async def ask(self, *command: Argument) -> object:
        """Raises Unavailable."""
        future: Future = asyncio.get_running_loop().create_future()
        self.send([packed(command)], [future])
        return await future

    def send(self, commands: list[bytes], futures: list[Future]) -> None:
        """Each packed command with the future that gets its reply, or Unavailable."""
        if self._transport is None or self._transport.is_closing():
            for future in futures:
                fail(future, "the connection is closed")
            return
        self._waiting.extend(futures)
        if self._observe is not None and self._marked is None and futures:
            self._marked = (futures[-1], asyncio.get_running_loop().time())
        self._transport.write(b"".join(commands))

    def close(self) -> None:
        self._tell_lost = None
        if self._transport is not None:
            self._transport.abort()
        self._end("the connection was given up")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while self._tell_lost is not None and (reply := reader.gets()) is not _MORE:
                future = waiting.popleft()
                if self._marked is not None and future is self._marked[0]:
                    self._measured(self._marked[1])
                if isinstance(reply, hiredis.ReplyError):
                    self._refused(future, str(reply))
                elif not future.done():
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self._lost(f"this is not Redis: {error!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(f"the connection was lost: {error!r}" if error else "the connection was closed")

    def _measured(self, began: float) -> None:
        self._marked = None
        if self._observe is not None:
            self._observe(asyncio.get_running_loop().time() - began)

    def _refused(self, future: Future, error: str) -> None:
        fail(future, error)
        if error.startswith(ELSEWHERE):
            kind, _, rest = error.partition(" ")
            host, _, port = rest.partition(" ")[2].rpartition(":")
            if kind == "MOVED" and host and port.isdigit():
                self._moved = (host, int(port))
            self._lost(error)

    def _lost(self, reason: str) -> None:
        tell, self._tell_lost = self._tell_lost, None
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)
        if tell is not None:
            tell(self, reason, self._moved)

    def _end(self, reason: str) -> None:
        while self._waiting:
            fail(self._waiting.popleft(), reason)


def packed(command: tuple[Argument, ...]) -> bytes:
    return cast(bytes, hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows one-tuples only


def fail(future: Future, reason: str) -> None:
    if not future.done():
        future.set_exception(Unavailable(f"redis: {reason}"))
        future.exception()  # whoever asked may not wait for it any more
