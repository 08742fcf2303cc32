"""Machines of the launcher `local`: there as long as the kernel says so, found again, ended; never somebody else's."""

import asyncio
import fcntl
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from common.deployments import Spec
from provisioner.fitting import Defaults, checked
from provisioner.launcher import Candidate, Failed, Order, Up
from provisioner.local import Local


def an_order(cluster: str, **fields: Any) -> Order:
    spec = msgspec.convert({"name": "a", "model": "org/m", "launcher": "local", **fields}, Spec, strict=False)
    plan = checked(spec, Defaults(version="0.32.0"))
    return Order(cluster=cluster, plan=plan, candidate=Candidate(cloud="local", region="local"), key="sk-engine")


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    local = Local(tmp_path / "machines", stop_seconds=5)
    yield local
    for cluster in await local.observe():
        await local.down(cluster)


async def answers(url: str) -> list[str]:
    """Once it answers: the models."""
    async with asyncio.timeout(20), aiohttp.ClientSession(headers={"authorization": "Bearer sk-engine"}) as session:
        while True:
            try:
                async with session.get(f"{url}/v1/models") as response:
                    return [card["id"] for card in (await response.json())["data"]]
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def test_a_machine_serves_until_it_is_taken_down_and_its_log_stays(local: Local, tmp_path: Path) -> None:
    assert (await local.observe(), await local.find("c-1")) == ({}, None)
    request = await local.launch(an_order("c-1"))
    up = await local.poll("c-1", request)
    assert isinstance(up, Up)
    assert await answers(up.endpoint) == ["org/m"]

    again = Local(tmp_path / "machines")  # a provisioner that was started anew
    assert (await again.observe(), await again.find("c-1")) == ({"c-1": True}, "c-1")
    assert await again.launch(an_order("c-1")) == request
    assert await again.poll("c-1", request) == up

    await again.down("c-1")
    assert await local.observe() == {}
    assert isinstance(await local.poll("c-1", request), Failed)
    assert "org/m" in (await local.log("c-1", 0)).text
    await again.down("c-1")
    await again.down("never-was")


async def test_many_launches_at_once_are_one_machine(local: Local) -> None:
    await asyncio.gather(*(local.launch(an_order("c-1")) for _ in range(4)))
    up = await local.poll("c-1", "c-1")
    assert isinstance(up, Up)
    assert await local.observe() == {"c-1": True}


async def test_one_taken_down_before_it_is_started_never_runs(local: Local, tmp_path: Path) -> None:
    (tmp_path / "machines" / "c-1").mkdir()
    await local.down("c-1")
    with pytest.raises(Exception, match="could not be started"):
        await local.launch(an_order("c-1"))
    assert await local.observe() == {}


async def test_an_engine_that_ends_by_itself_is_a_failure_that_says_why(tmp_path: Path) -> None:
    local = Local(tmp_path, environment={"SIM_TOKEN_MS": "nonsense"})
    await local.launch(an_order("c-1"))
    async with asyncio.timeout(20):
        while not isinstance(found := await local.poll("c-1", "c-1"), Failed):
            await asyncio.sleep(0.05)
    assert found.failure == "broken"
    assert "code 1" in found.reason
    assert "token_ms" in found.reason
    assert await local.find("c-1") == "c-1"


HOLDER = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
)


async def test_all_end_with_their_lifeline(tmp_path: Path) -> None:
    """As when a stack is killed that has machines."""
    lifeline = tmp_path / "alive"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lifeline)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        local = Local(tmp_path / "machines", lifeline=lifeline, stop_seconds=5)
        await local.launch(an_order("c-1"))
        up = await local.poll("c-1", "c-1")
        assert isinstance(up, Up)
        await answers(up.endpoint)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        async with asyncio.timeout(20):
            while await local.observe():
                await asyncio.sleep(0.05)


async def test_a_stranger_that_got_the_same_number_is_left_alone(local: Local, tmp_path: Path) -> None:
    """There is no number to be wrong: a folder that nobody holds is no machine, and taking it down signals nobody."""
    home = tmp_path / "machines" / "c-1"
    home.mkdir()
    for name in ("lock", "port", "pid"):
        (home / name).write_text("1")
    assert await local.observe() == {}
    await local.down("c-1")
    with (home / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
