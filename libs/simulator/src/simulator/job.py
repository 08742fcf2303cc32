"""One request inside the engine, from the end of its prefill to its last token."""

import asyncio
from typing import Protocol

from simulator.ask import Ask
from simulator.errors import BadRequest, Dead, Refusal
from simulator.faults import Plan
from simulator.sequence import Delta, Sequence, join
from simulator.wheel import Tick

# A forced call comes several tokens to a chunk, as recorded; chunks are never tokens.
_TOOL_STRIDE = 4


def _no_tick(due: float) -> None:
    """Of a job that no engine has taken yet."""


class Sink(Protocol):
    """Where the tokens of a job go: a stream, or a body that is written at the end."""

    def begin(self) -> None: ...
    def step(self, sequence: Sequence, delta: Delta, produced: int, last: bool) -> None: ...
    def end(self, produced: int) -> None: ...
    def fail(self, refusal: Refusal) -> None: ...
    def cut(self, reset: bool) -> None: ...


class Job:
    """`done` resolves to the ending once nothing more will be written to the sink."""

    def __init__(self, ask: Ask, plan: Plan, sequences: list[Sequence], sink: Sink) -> None:
        self.ask = ask
        self.plan = plan
        self.sequences = sequences
        self.sink = sink
        self.produced = 0
        self.begun = False
        self.stalled = False
        self.tick: Tick = _no_tick  # what the wheel calls, made once and not at every token
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._live = list(sequences)
        self._stride = max(plan.stride, _TOOL_STRIDE if ask.tool else 1)

    def step(self) -> int:
        """Every live choice goes one step on; returns the tokens generated."""
        before = self.produced
        if not self.begun:
            self.begun = True
            if self._strikes():
                return 0
            self.sink.begin()
            if self.ask.error:
                self.sink.fail(BadRequest(self.ask.error))
                self._end("refused")
                return 0
        live = self._live
        for sequence in live:
            delta = sequence.step() if self._stride == 1 else self._stride_of(sequence)
            self.produced += len(delta.ids)
            last = bool(delta.finish) and all(s.finish for s in live)
            self.sink.step(sequence, delta, self.produced, last)
            if self._strikes():
                return self.produced - before
        self._live = [s for s in live if not s.finish]
        if not self._live:
            self.sink.end(self.produced)
            self._end("completed")
        return self.produced - before

    def _stride_of(self, sequence: Sequence) -> Delta:
        deltas = []
        for _ in range(self._stride):
            deltas.append(sequence.step())
            if sequence.finish:
                break
        return join(deltas)

    def _strikes(self) -> bool:
        ending = self.plan.ending
        if not ending or self.produced < self.plan.after_tokens:
            return False
        match ending:
            case "stall":
                self.stalled = True
                return True
            case "truncate" | "reset":
                self.sink.cut(ending == "reset")
            case "error":
                self.sink.fail(Dead())
            case "error400":
                self.sink.fail(BadRequest("The request cannot be served (fault on demand)."))
            case "abort":
                self.abort(f"fault:{ending}")
                return True
        self._end(f"fault:{ending}")
        return True

    def abort(self, ending: str = "aborted") -> None:
        """End as a server that is told to stop does: finish reason "abort", usage, a clean end."""
        if self.done.done():
            return
        if not self.stalled:
            if not self.begun or not self.produced:
                self.begun = True
                self.sink.begin()
            live = [s for s in self.sequences if not s.finish]
            for sequence in live:
                sequence.finish = "abort"
                delta = Delta("", b'""', (), "abort")
                self.sink.step(sequence, delta, self.produced, sequence is live[-1])
            self.sink.end(self.produced)
        self._end("fault:stall" if self.stalled else ending)

    def _end(self, ending: str) -> None:
        if not self.done.done():
            self.done.set_result(ending)
