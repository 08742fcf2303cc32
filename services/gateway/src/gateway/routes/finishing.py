"""Calls of `/admin/*` and `/account/*` are finished even when the client hangs up.

A change without its announcement would be half of one; so would a denied or a forwarded call without its entry in the
audit log.
"""

import asyncio
import logging
from typing import Any

log = logging.getLogger(__name__)


class Finishing:
    def __init__(self, app: Any) -> None:  # Any: an ASGI app
        self._app = app
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith(("/admin", "/account")):
            await self._app(scope, receive, send)
            return
        gone = False

        async def send_if_heard(message: Any) -> None:
            if not gone:
                await send(message)
            elif message.get("more_body"):  # what follows is for nobody
                raise ConnectionResetError("the client has hung up")

        task = asyncio.create_task(self._app(scope, receive, send_if_heard))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            gone = True
            raise

    async def drained(self, timeout: float) -> None:
        """Returns when nothing is running, or after so many seconds."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionResetError):
            log.error("a call failed", exc_info=error)
