"""The launcher `local`: each machine is a process here that keeps an engine, and that outlives the provisioner.

A machine is its folder: `lock` is held while it runs, `port` says where, `log` what its engine says, `exit` how it
ended. Killed at any point, a provisioner finds all of them again.
"""

import asyncio
import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from common.deployments import Spec
from common.errors import Unavailable
from provisioner.argv import argv
from provisioner.launcher import Candidate, Failed, LogPart, Order, Outcome, Up

KEEPER = str(Path(__file__).with_name("keeper.py"))
PASSED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""Of our environment to an engine, which has no business with the rest; SIM_* and HF_* besides."""
LARGEST = 200_000
"""Bytes of a log at once."""
KEPT = 7 * 86_400.0
"""Seconds that the folder of a machine that ended is kept for its log."""
TAIL = 300
FULL = "full"
"""Instead of an exit code."""


class Local:
    def __init__(
        self,
        folder: Path,
        *,
        engine: Literal["simulator", "vllm"] = "simulator",
        vllm: str = "vllm",
        lifeline: Path | None = None,
        most: int = 8,
        stop_seconds: float = 130,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`lifeline` is a file: when nobody holds a lock on it any more, every engine ends. `most` is how many engines
        there may be."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._engine, self._vllm = folder, engine, vllm
        self._lifeline = str(lifeline) if lifeline else "-"
        self._stop_seconds, self._most = stop_seconds, most
        self._starting = asyncio.Lock()
        self._environment = {
            name: value for name, value in environment.items() if name in PASSED or name.startswith(("SIM_", "HF_"))
        }

    async def candidates(self, spec: Spec) -> list[Candidate]:
        (name, count), *_ = spec.accelerators[0].items() if spec.accelerators else [("", 0)]
        return [Candidate(cloud="local", region="local", accelerator=name, count=count)]

    async def find(self, cluster: str) -> str | None:
        home = self._folder / cluster
        return cluster if self._runs(home) or (home / "exit").exists() else None

    async def launch(self, order: Order) -> str:
        """Killed after the machine is there, the next call finds it and changes nothing."""
        home = self._folder / order.cluster
        home.mkdir(exist_ok=True)
        async with self._starting:
            if not self._runs(home):
                await self._start(home, order)
        return order.cluster

    async def _start(self, home: Path, order: Order) -> None:
        if sum(map(self._runs, self._folder.iterdir())) >= self._most:
            (home / "exit").write_text(FULL)
            return
        port = _free_port()
        (home / "port.new").write_text(str(port))
        (home / "port.new").replace(home / "port")
        command, environment = self._command(order, port)
        how = [sys.executable, "-I", "-S", KEEPER, str(home), self._lifeline, str(self._stop_seconds)]
        keeper = await asyncio.create_subprocess_exec(
            *how, *command, env={**self._environment, **environment}, start_new_session=True
        )
        if await keeper.wait():
            raise Unavailable(f"{order.cluster} could not be started")

    async def poll(self, cluster: str, request_id: str) -> Outcome:
        home = self._folder / cluster
        if self._runs(home):
            return Up(f"http://127.0.0.1:{(home / 'port').read_text()}")
        code = (home / "exit").read_text() if (home / "exit").exists() else "?"
        if code == FULL:
            return Failed(f"there is room for {self._most} engines on this machine", "capacity")
        said = self._tail(home)
        return Failed(f"its engine ended with code {code}" + (f": {said}" if said else ""), "broken")

    async def observe(self) -> dict[str, bool]:
        self._forget_old()
        return {home.name: True for home in sorted(self._folder.iterdir()) if home.is_dir() and self._runs(home)}

    async def down(self, cluster: str, request_id: str | None = None) -> None:
        home = self._folder / cluster
        if not home.is_dir():
            return
        (home / "stop").touch()
        deadline = time.monotonic() + self._stop_seconds + 10
        while self._runs(home):
            if time.monotonic() > deadline:
                raise Unavailable(f"{cluster} does not end")
            await asyncio.sleep(0.05)

    async def log(self, cluster: str, offset: int) -> LogPart:
        try:
            with (self._folder / cluster / "log").open("rb") as file:
                file.seek(offset)
                found = file.read(LARGEST)
        except FileNotFoundError:
            return LogPart("", offset)
        return LogPart(found.decode("utf-8", "replace"), offset + len(found))

    def _command(self, order: Order, port: int) -> tuple[list[str], dict[str, str]]:
        words = argv(order.plan, order.candidate.choice, "127.0.0.1", port)
        if self._engine == "vllm":
            return [self._vllm, *words[1:]], {"VLLM_API_KEY": order.key}
        settings = {"HOST": "127.0.0.1", "PORT": str(port), "MODELS": order.plan.spec.model, "API_KEY": order.key}
        if context := order.plan.flags.get("--max-model-len"):
            settings["MAX_MODEL_LEN"] = str(context)
        return [sys.executable, "-m", "simulator"], {f"SIM_{name}": value for name, value in settings.items()}

    def _runs(self, home: Path) -> bool:
        """The kernel's word: a lock ends with who holds it."""
        try:
            descriptor = os.open(home / "lock", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _tail(self, home: Path) -> str:
        try:
            text = (home / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return " ".join("".join(c if c.isprintable() else " " for c in text[-TAIL:]).split())

    def _forget_old(self) -> None:
        for mark in self._folder.glob("*/exit"):
            if time.time() - mark.stat().st_mtime > KEPT:
                shutil.rmtree(mark.parent, ignore_errors=True)


def _free_port() -> int:
    """Free a moment ago; an engine that finds it taken ends, and the next try has another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
