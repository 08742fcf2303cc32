"""Many timers for the price of few: what is due within the same few milliseconds runs in one wake-up."""

import asyncio
from collections.abc import Callable

Tick = Callable[[float], None]


class Wheel:
    """Calls `tick(due)` at the first slot boundary not before `due`; never twice for one `at`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, width: float) -> None:
        self._loop = loop
        self._width = width
        self._slots: dict[int, list[tuple[float, Tick]]] = {}
        self._soon: list[tuple[float, Tick]] = []

    def at(self, due: float, tick: Tick) -> None:
        if due <= self._loop.time():
            if not self._soon:
                self._loop.call_soon(self._run_soon)
            self._soon.append((due, tick))
            return
        slot = int(due / self._width) + 1
        if slot not in self._slots:
            self._slots[slot] = []
            self._loop.call_at(slot * self._width, self._run, slot)
        self._slots[slot].append((due, tick))

    def _run(self, slot: int) -> None:
        for due, tick in self._slots.pop(slot):
            tick(due)

    def _run_soon(self) -> None:
        # What is added meanwhile waits for the next turn of the loop, so sockets are served in between.
        now, self._soon = self._soon, []
        for due, tick in now:
            tick(due)
