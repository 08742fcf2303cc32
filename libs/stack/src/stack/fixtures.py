"""pytest fixtures: real servers for every test, started once a worker when first asked for.

`postgres_dsn` is a database of the test's own, `nats_url` a server of its own (streams have fixed names),
`redis_url` with `redis_namespace` a prefix of its own. `TEST_POSTGRES_URL`, `TEST_NATS_URL` and `TEST_REDIS_URL` name
servers to use instead. All are plain strings and hold in every event loop.
"""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from stack import sources
from stack.assembly import open_folder
from stack.config import Config
from stack.loop import LoopThread
from stack.stack import Stack


@pytest.fixture(scope="session")
def stack_session() -> Iterator[tuple[LoopThread, Path]]:
    """The thread that watches the servers of this worker, and the folder for their data."""
    folder = open_folder()
    thread = LoopThread()
    yield thread, folder
    thread.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack_dir() -> Iterator[Path]:
    """An empty folder that an unprivileged Postgres can reach, unlike `tmp_path` of root."""
    folder = open_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(stack_session: tuple[LoopThread, Path]) -> Iterator[str]:
    """The DSN of a database in which others may be created."""
    with sources.postgres_server(*stack_session) as dsn:
        yield dsn


@pytest.fixture
def postgres_dsn(stack_session: tuple[LoopThread, Path], postgres_server: str) -> Iterator[str]:
    """An empty database; dropped afterwards, whoever is still connected."""
    thread, _ = stack_session
    name = f"t_{uuid.uuid4().hex}"
    thread.wait(_execute(postgres_server, f'create database "{name}"'))
    yield with_database(postgres_server, name)
    thread.wait(_execute(postgres_server, f'drop database "{name}" with (force)'))


@pytest.fixture
def nats_url(stack_session: tuple[LoopThread, Path]) -> Iterator[str]:
    """A NATS server with JetStream and no streams, this test's alone."""
    with sources.nats_server(*stack_session) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(stack_session: tuple[LoopThread, Path]) -> Iterator[str]:
    """Shared by the tests of a worker: use `redis_namespace`."""
    with sources.valkey_server(*stack_session) as url:
        yield url


@pytest.fixture
def redis_namespace() -> str:
    return f"t{uuid.uuid4().hex[:16]}"


Spawn = Callable[[str, msgspec.Struct], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn_service(stack_dir: Path) -> Iterator[Spawn]:
    """`spawn_service("billing", settings)`: `python -m billing`; what still runs at the end must stop on SIGTERM."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, settings: msgspec.Struct) -> "subprocess.Popen[bytes]":
        values = {field.upper(): str(value) for field, value in msgspec.structs.asdict(settings).items() if value}
        with (stack_dir / f"{name}-{len(processes)}.log").open("wb") as output:
            command = [sys.executable, "-m", name]
            process = subprocess.Popen(command, env=os.environ | values, stderr=output)  # noqa: S603  a service of ours
        processes.append(process)
        return process

    yield start
    alive = [process for process in processes if process.poll() is None]
    for process in alive:
        process.send_signal(signal.SIGTERM)
    try:
        codes = [process.wait(20) for process in alive]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0] * len(alive)


MakeStack = Callable[..., Awaitable[Stack]]


@pytest.fixture
async def make_stack() -> AsyncIterator[MakeStack]:
    """`await make_stack(gateways=2)`: a whole stack with these fields of its Config, in a folder of its own."""
    async with AsyncExitStack() as running:
        yield _maker(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def make_stack_of_module() -> AsyncIterator[MakeStack]:
    """As `make_stack`, for stacks that all tests of a module share."""
    async with AsyncExitStack() as running:
        yield _maker(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    """One stack for all tests of a module, each in whatever loop."""
    return await make_stack_of_module()


def _maker(running: AsyncExitStack) -> MakeStack:
    async def make(**changes: Any) -> Stack:  # Any: fields of Config
        return await running.enter_async_context(Stack(Config(**changes)))

    return make


def with_database(dsn: str, name: str) -> str:
    head, _, query = dsn.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
