"""The two places where tokens go: a stream of events, or a list that becomes a body."""

import asyncio
from typing import Protocol

from simulator.ask import Ask
from simulator.errors import Refusal
from simulator.sequence import Delta, Sequence
from simulator.wire import Wire

_DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"


class Frames(Protocol):
    """Bytes of the events of one endpoint."""

    def first(self, index: int) -> bytes: ...
    def step(self, sequence: Sequence, delta: Delta, last: bool) -> list[bytes]: ...


class ChunkFrames(Frames, Protocol):
    """Of an endpoint whose last chunk may hold the usage."""

    def usage(self, produced: int) -> bytes: ...


class _Events:
    """Events as they come."""

    def __init__(self, ask: Ask, frames: Frames, wire: Wire, keepalive_s: float = 0.0) -> None:
        self._ask = ask
        self._frames = frames
        self._wire = wire
        self._keepalive_s = keepalive_s
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rest()

    def _rest(self) -> None:
        """A comment line whenever an interval passed without an event."""
        if self._keepalive_s:
            if self._timer and self._seen == self._wire.writes:
                self._wire.event(_KEEP_ALIVE)
            self._seen = self._wire.writes
            self._timer = asyncio.get_running_loop().call_later(self._keepalive_s, self._rest)

    def close(self) -> None:
        """Stop the comment lines."""
        self._keepalive_s = 0.0
        if self._timer:
            self._timer.cancel()

    def begin(self) -> None:
        for index in range(self._ask.n):
            if chunk := self._frames.first(index):
                self._wire.event(chunk, 0)

    def step(self, sequence: Sequence, delta: Delta, produced: int, last: bool) -> None:
        for chunk in self._frames.step(sequence, delta, last):
            self._wire.event(chunk, produced)

    def cut(self, reset: bool) -> None:
        self._wire.flush()
        self.close()
        if reset:
            self._wire.reset()
        else:
            self._wire.close()


class Stream(_Events):
    """Chunks, then `[DONE]`."""

    def __init__(self, ask: Ask, frames: ChunkFrames, wire: Wire, keepalive_s: float = 0.0) -> None:
        super().__init__(ask, frames, wire, keepalive_s)
        self._chunks = frames

    def end(self, produced: int) -> None:
        if self._ask.include_usage:
            self._wire.event(self._chunks.usage(produced), produced)
        self._wire.event(_DONE)
        self._wire.finish()
        self.close()

    def fail(self, refusal: Refusal) -> None:
        """After the head nothing but the stream itself can tell an error; `[DONE]` follows it nevertheless."""
        self._wire.event(b"data: " + refusal.body() + b"\n\n")
        self._wire.event(_DONE)
        self._wire.finish()
        self.close()


class EventFrames(Frames, Protocol):
    """Of an endpoint whose stream has an end of its own instead of `[DONE]`."""

    def opening(self) -> list[bytes]: ...
    def end(self, produced: int) -> list[bytes]: ...
    def failed(self, refusal: Refusal) -> list[bytes] | None: ...


class EventStream(_Events):
    """Named events as they come."""

    def __init__(self, ask: Ask, frames: EventFrames, wire: Wire, keepalive_s: float = 0.0) -> None:
        super().__init__(ask, frames, wire, keepalive_s)
        self._events = frames
        for event in frames.opening():
            wire.event(event, 0)

    def end(self, produced: int) -> None:
        for event in self._events.end(produced):
            self._wire.event(event, produced)
        self._wire.finish()
        self.close()

    def fail(self, refusal: Refusal) -> None:
        events = self._events.failed(refusal)
        if events is None:
            self.cut(False)
            return
        for event in events:
            self._wire.event(event)
        self._wire.finish()
        self.close()


class Whole:
    """Texts by choice, and what went wrong instead."""

    def __init__(self) -> None:
        self.texts: dict[int, list[str]] = {}
        self.refusal: Refusal | None = None
        self.cut_by_reset: bool | None = None

    def close(self) -> None:
        """Nothing runs here."""

    def begin(self) -> None:
        """A body begins at the end."""

    def step(self, sequence: Sequence, delta: Delta, produced: int, last: bool) -> None:
        self.texts.setdefault(sequence.index, []).append(delta.text)

    def end(self, produced: int) -> None:
        """The body is written by who awaits the job."""

    def fail(self, refusal: Refusal) -> None:
        self.refusal = refusal

    def cut(self, reset: bool) -> None:
        self.cut_by_reset = reset
