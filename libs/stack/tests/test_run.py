"""`python -m stack` starts everything, says how to use it, refuses a second one, and leaves nobody behind."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

Start = Callable[..., "Run"]


class Run:
    """One `python -m stack` in its folder, in a process group of its own like a job of a shell."""

    def __init__(self, folder: Path, number: int, census: Any, until: Any, env: dict[str, str]) -> None:
        self.folder = folder
        self._census = census
        self._until = until
        self.output = folder / f"output-{number}"
        values = {**census.env, "PORT": "0", "LOCAL_DIR": str(folder / ".local"), **env}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stack"], env=values, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def printed(self) -> str:
        return self.output.read_text()

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / ".local/stack.json").read_text())
        return found

    async def ready(self) -> None:
        await self._until(lambda: "curl" in self.printed or self.process.poll() is not None)
        assert self.process.poll() is None, self.printed

    async def gone(self) -> int:
        """The exit code; nobody is left."""
        code = await asyncio.to_thread(self.process.wait, 60)
        assert self._census.alive == {}, self.printed
        return code


@pytest.fixture
def start(stack_dir: Path, census: Any, until: Any) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(**env: str) -> Run:
        runs.append(Run(stack_dir, len(runs), census, until, env))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()


async def ask(told: dict[str, Any], path: str, token: str, **body: object) -> Any:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {told[token]}"}) as session,
        session.request("POST" if body else "GET", told["gateway_url"] + path, json=body or None) as response,
    ):
        assert response.status == 200, await response.text()
        return await response.json()


async def test_a_second_run_serves_the_same_tenant_and_key(start: Start, until: Any) -> None:
    first = start()
    await first.ready()
    told = first.told
    assert stat.S_IMODE((first.folder / ".local/stack.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((first.folder / ".local/state.json").stat().st_mode) == 0o600
    assert told["api_key"] in first.printed
    answer = await ask(
        told, "/v1/chat/completions", "api_key",
        model="demo-8b", max_tokens=5, messages=[{"role": "user", "content": "Hello"}],
    )  # fmt: skip
    assert answer["usage"]["completion_tokens"] == 5

    refused = start()
    assert await asyncio.to_thread(refused.process.wait, 30) == 1
    assert "already running" in refused.printed
    assert str(first.process.pid) in refused.printed

    (before,) = told["processes"]["scheduler"]
    os.kill(before, signal.SIGKILL)
    await until(lambda: first.told["processes"]["scheduler"] not in ([], [before]))

    first.process.send_signal(signal.SIGINT)
    assert await first.gone() == 0
    assert not (first.folder / ".local/stack.json").exists()

    second = start(GATEWAYS="2")
    await second.ready()
    again = second.told
    assert len(again["processes"]["gateway"]) == 2
    assert {name: again[name] for name in ("api_key", "tenant_id", "admin_token")} == {
        name: told[name] for name in ("api_key", "tenant_id", "admin_token")
    }
    nodes = (await ask(again, "/admin/nodes", "admin_token"))["nodes"]
    assert [node["state"] for node in nodes] == ["ready", "ready"]
    os.killpg(second.process.pid, signal.SIGINT)
    assert await second.gone() == 0


@pytest.mark.parametrize("moment", ["postgres/data.new", "logs/nats.log", "logs/gateway-0.log"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_during_the_start_leaves_nobody(
    start: Start, until: Any, moment: str, number: signal.Signals
) -> None:
    run = start()
    await until((run.folder / ".local" / moment).exists)
    run.process.send_signal(number)
    assert await run.gone() == 0


async def test_a_second_signal_does_not_wait_for_streams(start: Start, until: Any, census: Any) -> None:
    run = start(SIM_TOKEN_MS="50")
    await run.ready()
    told = run.told
    body = {"model": "demo-8b", "max_tokens": 4000, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {told['api_key']}"}) as session,
        session.post(told["gateway_url"] + "/v1/chat/completions", json=body) as response,
    ):
        await response.content.readline()
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGINT)  # as `timeout` does: these two are one
        await until(lambda: "stopping" in run.printed)
        await asyncio.sleep(1.2)  # longer than signals count as one
        assert run.process.poll() is None
        run.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(run.process.wait, 5) == 130
    await until(lambda: not census.alive)


async def test_a_port_that_others_use_is_named(start: Start) -> None:
    listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        run = start(PORT=str(port))
        assert await run.gone() == 1
    assert f"port {port} (PORT) is in use" in run.printed
    assert "Traceback" not in run.printed
