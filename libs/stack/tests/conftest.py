"""Who of a stack is still there, and waiting for it to change."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

MARK = "STACK_TEST_MARK"


class Census:
    """Counts the processes that inherited `env`, name the folder in their command line, or descend from such a one."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._mark = uuid.uuid4().hex
        self.env = {**os.environ, MARK: self._mark}

    @property
    def alive(self) -> dict[int, str]:
        """Pid to command line."""
        found: dict[int, str] = {}
        parents: dict[int, int] = {}
        lines: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                pid = int(entry.name)
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z":
                    continue
                parents[pid] = int(parent)
                lines[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if self._folder in lines[pid] or f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes():
                    found[pid] = lines[pid]
        while more := {pid: lines[pid] for pid, parent in parents.items() if parent in found and pid not in found}:
            found |= more
        return found


@pytest.fixture
def census(stack_dir: Path) -> Census:
    return Census(stack_dir)


@pytest.fixture
def until() -> Callable[..., object]:
    """`await until(lambda: …)`: returns once it is true."""

    async def wait(happened: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.02)

    return wait
