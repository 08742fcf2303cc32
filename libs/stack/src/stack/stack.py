"""A whole stack as one object: started, asked, hurt and stopped.

A Stack belongs to no event loop: its children live in a thread with a loop of its own, properties are plain values, and
every `async` method may be awaited from any loop. So one Stack can serve all tests of a module.
"""

import asyncio
import signal as signals
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from stack.assembly import Assembly
from stack.config import Config
from stack.loop import LoopThread

__all__ = ["Config", "Stack"]
T = TypeVar("T")


class Stack:
    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.redis_namespace = "crosslogic"
        self._assembly = Assembly(self.config)
        self._thread: LoopThread | None = None

    async def __aenter__(self) -> "Stack":
        """Returns once a request would be answered.

        Raises StartFailed, PortInUse, AdminRefused; then, as when cancelled, nothing is left running.
        """
        self._thread = LoopThread()
        try:
            await self._call(self._assembly.open())
        except BaseException:
            await asyncio.shield(self.close())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.close())

    async def close(self) -> None:
        """Gateways finish what they have begun, then all else stops. May be called again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await thread.call(self._assembly.close())
        finally:
            await asyncio.to_thread(thread.close)

    @property
    def dir(self) -> Path:
        return self._assembly.folder

    @property
    def gateway_url(self) -> str:
        return self._assembly.gateway_url

    @property
    def admin_token(self) -> str:
        return self._assembly.state.admin_token

    @property
    def tenant_id(self) -> str:
        return self._assembly.state.tenant_id

    @property
    def api_key(self) -> str:
        return self._assembly.state.api_key

    @property
    def nats_url(self) -> str:
        return self._assembly.nats.url

    @property
    def postgres_dsn(self) -> str:
        return self._assembly.postgres.dsn

    @property
    def redis_url(self) -> str:
        return self._assembly.valkey.url

    @property
    def engine_urls(self) -> tuple[str, ...]:
        return self._assembly.engine_urls

    @property
    def models(self) -> tuple[str, ...]:
        """What the engines serve."""
        return self._assembly.models

    def metrics_url(self, name: str, index: int = 0) -> str:
        """The internal port of a service: append `/metrics`, `/healthz` or `/readyz`."""
        return f"http://127.0.0.1:{self._assembly.metrics[name][index].number}"

    def log(self, name: str, index: int = 0) -> Path:
        """The file that a child writes to."""
        return self._assembly.child(name, index).log

    def pids(self, name: str) -> list[int]:
        """Of the processes that run now; names as in `stack.json`."""
        return self._assembly.supervisor.pids().get(name, [])

    async def kill(self, name: str, index: int = 0, signal: signals.Signals = signals.SIGKILL) -> None:
        """Send a signal; after SIGKILL return once the process is dead. With `restart` it then comes back by itself."""
        await self._call(self._assembly.child(name, index).kill(signal))

    async def ready(self, name: str, index: int = 0) -> None:
        """Wait until a child that was killed answers again. Raises StartFailed."""
        await self._call(self._assembly.child(name, index).ready())

    async def stop(self, name: str, index: int = 0) -> None:
        """Stop it, and leave it so until `restart`."""
        await self._call(self._assembly.child(name, index).stop())

    async def restart(self, name: str, index: int = 0) -> None:
        """Stop it if it runs, start it with the same port and data, return once it is ready."""
        await self._call(self._assembly.child(name, index).again())

    async def add_gateway(self) -> int:
        """One more behind the same port; returns its index."""
        return await self._call(self._assembly.add_gateway())

    async def admin(self, method: str, path: str, json: object = None) -> Any:  # Any: the JSON of any endpoint
        """Ask the admin API. Raises AdminRefused with status and body, aiohttp.ClientError."""
        return await self._call(self._assembly.admin(method, path, json))

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            work.close()
            raise RuntimeError("the stack is not running")
        return await self._thread.call(work)
