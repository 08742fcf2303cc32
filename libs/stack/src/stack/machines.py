"""The machines that the provisioner starts on its launcher `local`: told where to be, and ended with the stack."""

import asyncio
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

SECONDS = 20.0
"""That they may take to end. What is on them by then is nobody's any more: the gateways have stopped."""


class Machines:
    """They outlive the provisioner, which may be killed and come back, but not the stack: each of them watches a lock
    that the stack holds, and that the kernel releases however the stack ends."""

    def __init__(self, folder: Path) -> None:
        self._lifeline = folder / "machines.lifeline"
        self._folder = folder / "machines"
        self._held: int | None = None

    def open(self) -> None:
        self._held = os.open(self._lifeline, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def env(self, secret: str, simulator: Mapping[str, object]) -> dict[str, str]:
        """For the provisioner; `simulator` are the settings of its engines."""
        return {
            "PROVISIONER_SECRET_KEY": secret,
            "PROVISIONER_LOCAL_DIR": str(self._folder),
            "PROVISIONER_LOCAL_LIFELINE": str(self._lifeline),
            **{f"SIM_{name.upper()}": str(value) for name, value in simulator.items()},
        }

    async def close(self) -> None:
        """Returns once they have ended. May be called without `open`."""
        if self._held is None:
            return
        os.close(self._held)
        self._held = None
        deadline = time.monotonic() + SECONDS
        while self._running() and time.monotonic() < deadline:  # noqa: ASYNC110  other processes
            await asyncio.sleep(0.05)

    def _running(self) -> bool:
        return any(_locked(lock) for lock in self._folder.glob("*/lock"))


def _locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
