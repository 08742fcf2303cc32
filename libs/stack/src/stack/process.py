"""A child process: started, waited for, started again when it dies, and never outliving us."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
FIRST_DELAY, LAST_DELAY, SETTLED = 0.1, 5.0, 10.0
LEASH = str(Path(__file__).with_name("leash.py"))


class StartFailed(Exception):
    """A child died before it was ready, or was not ready in time; carries the end of its log."""


class NotInstalled(StartFailed):
    """There is no such server program here."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """`gateway-0`: names the log file too."""
    argv: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = {}
    """On top of ours."""
    uid: int = -1
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends when we die."""
    stop_seconds: float = 15.0
    """From `stop_signal` to SIGKILL."""


class Child:
    """Use from one event loop, in a thread that outlives the child."""

    def __init__(self, command: Command, logs: Path, restart: bool, changed: Callable[[], None] = lambda: None) -> None:
        self.command = command
        self.log = logs / f"{command.name}.log"
        self._restart = restart
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    async def start(self) -> None:
        """Returns once it is ready. Raises StartFailed."""
        await self._spawn()
        await self.ready()
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it answers. Raises StartFailed when it is not restarted and dies, or takes longer."""
        deadline = time.monotonic() + seconds
        while not await self._answers():
            kept = self._keeper is not None and not self._keeper.done()
            if self._process and self._process.returncode is not None and not kept:
                raise StartFailed(f"{self.command.name} {_ending(self._process.returncode)}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.command.name} was not ready within {seconds:.0f} s\n{self.log_tail()}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Ask, wait, then SIGKILL. Never raises; may be called again."""
        await self._leave()
        if self._process is None or self._process.returncode is not None:
            return
        # a stopped process (SIGSTOP) would not see the signal before the deadline
        self.signal(signal.SIGCONT)
        self.signal(self.command.stop_signal)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self.command.stop_seconds)
            return
        log.warning("%s did not stop within %.0f s: killed", self.command.name, self.command.stop_seconds)
        self.signal(signal.SIGKILL)
        await self._process.wait()

    async def kill(self, number: signal.Signals) -> None:
        """Send a signal; after SIGKILL, return once it is dead. It is then restarted, if it is to be."""
        process = self._process
        self.signal(number)
        if number == signal.SIGKILL and process:
            await process.wait()

    async def again(self) -> None:
        """Stop it if it runs, start it, return once it is ready."""
        await self.stop()
        await self.start()

    def signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def log_tail(self, lines: int = 20) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def _spawn(self) -> None:
        command = self.command
        self.log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *leashed(command.argv, command.uid, command.death_signal),
                env={**os.environ, **command.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # a Ctrl-C in the terminal is for us alone: we stop the children in order
                start_new_session=True,
            )
        finally:
            os.close(output)
        self._changed()

    async def _answers(self) -> bool:
        if self.pid is None:
            return False
        with suppress(OSError, TimeoutError):
            return await asyncio.wait_for(self.command.ready(), 2)
        return False

    async def _keep(self) -> None:
        delay = FIRST_DELAY
        while self._process:
            born = time.monotonic()
            code = await self._process.wait()
            self._changed()
            if not self._restart:
                return
            if time.monotonic() - born > SETTLED:
                delay = FIRST_DELAY
            log.warning("%s %s: starting it again", self.command.name, _ending(code))
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)
            await self._spawn()

    async def _leave(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None


def leashed(argv: Sequence[str], uid: int = -1, death_signal: signal.Signals = signal.SIGKILL) -> list[str]:
    """`argv` run as a user (-1: ours), and sent a signal by the kernel once the thread that started it has ended."""
    how = [str(int(death_signal)), str(os.getpid()), str(uid)]
    return [sys.executable, "-I", "-S", LEASH, *how, *argv]


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


async def http_ok(port: int, path: str) -> bool:
    """Whether `GET http://127.0.0.1:port/path` answers 200. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        return (await reader.readline()).split()[1:2] == [b"200"]
    finally:
        writer.close()


async def tcp_accepts(port: int) -> bool:
    """Whether something listens on 127.0.0.1:port. Raises OSError."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True
