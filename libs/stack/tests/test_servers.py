"""Servers that die come back with their data, as root and as anybody."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import nats
import pytest
from redis.asyncio import Redis

from stack.postgres import _reachable
from stack.process import StartFailed
from stack.stack import Config, Stack

NOBODY = 65534


@asynccontextmanager
async def only_servers(**changes: object) -> AsyncIterator[Stack]:
    async with Stack(Config(services=(), simulators=0, **changes)) as stack:  # type: ignore[arg-type]
        yield stack


async def test_a_killed_postgres_comes_back_with_its_data() -> None:
    async with only_servers() as stack:
        connection = await asyncpg.connect(stack.postgres_dsn)
        await connection.execute("create table kept as select 42 as n")
        await connection.close()
        (before,) = stack.pids("postgres")
        await stack.kill("postgres")
        await stack.ready("postgres")
        assert stack.pids("postgres") != [before]
        connection = await asyncpg.connect(stack.postgres_dsn)
        assert await connection.fetchval("select n from kept") == 42
        await connection.close()


async def test_a_killed_nats_comes_back_with_its_data() -> None:
    async with only_servers() as stack:
        connection = await nats.connect(stack.nats_url)
        await connection.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await connection.jetstream().publish("kept", b"42")
        await connection.close()
        await stack.kill("nats")
        await stack.ready("nats")
        connection = await nats.connect(stack.nats_url)
        assert (await connection.jetstream().stream_info("KEPT")).state.messages == 1
        await connection.close()


async def test_a_killed_valkey_comes_back_with_its_data_when_durable() -> None:
    async with only_servers(durable=True) as stack:
        async with Redis.from_url(stack.redis_url) as redis:
            await redis.set("kept", 42)
            await redis.config_set("appendfsync", "always")
            await redis.set("kept", 43)
        await stack.kill("valkey")
        await stack.ready("valkey")
        async with Redis.from_url(stack.redis_url) as redis:
            assert await redis.get("kept") == b"43"


async def test_without_restart_the_dead_stay_dead_until_they_are_restarted() -> None:
    async with only_servers(restart=False) as stack:
        await stack.kill("nats")
        assert stack.pids("nats") == []
        with pytest.raises(StartFailed, match="killed by SIGKILL"):
            await stack.ready("nats")
        await stack.restart("nats")
        await (await nats.connect(stack.nats_url)).close()


async def test_data_of_one_run_is_there_in_the_next(stack_dir: Path) -> None:
    async with only_servers(dir=stack_dir) as stack:
        connection = await asyncpg.connect(stack.postgres_dsn)
        await connection.execute("create table kept ()")
        await connection.close()
    async with only_servers(dir=stack_dir) as stack:
        connection = await asyncpg.connect(stack.postgres_dsn)
        await connection.execute("drop table kept")
        await connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that others cannot enter")
async def test_root_may_keep_its_data_where_nobody_else_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    try:
        async with only_servers(dir=tmp_path / "closed") as stack:
            await (await asyncpg.connect(stack.postgres_dsn)).close()
    finally:
        shutil.rmtree((tmp_path / "closed" / "postgres").resolve())


SCRIPT = """
import asyncio, sys
from pathlib import Path
import asyncpg
from stack.stack import Config, Stack

async def main():
    async with Stack(Config(dir=Path(sys.argv[1]), services=(), simulators=0)) as stack:
        connection = await asyncpg.connect(stack.postgres_dsn)
        print(await connection.fetchval("select 42"))
        await connection.close()

asyncio.run(main())
"""


async def test_a_normal_user_starts_them_too(stack_dir: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(stack_dir)]
    if os.geteuid() == 0:
        os.chown(stack_dir, NOBODY, NOBODY)
        command = [*as_nobody(), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "42\n", done.stderr


def as_nobody() -> list[str]:
    """Without root's rights, but for entering root's home where Python may be installed."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    enter = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    return user + ([] if _reachable(Path(sys.executable)) else enter)
