"""A thread with an event loop of its own, in which children are started, watched and stopped.

pytest-asyncio gives each test a loop that ends with it; a child's watcher must not. And the kernel ties a child's
parent-death signal to the *thread* that forked it, so the thread must live as long as the children do.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    def __init__(self, name: str = "stack") -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, for callers without an event loop."""
        return self.submit(work).result()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, for callers in any other event loop; their cancellation cancels it."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Stop the children first; the kernel kills those that still run once the thread has ended. Idempotent."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
