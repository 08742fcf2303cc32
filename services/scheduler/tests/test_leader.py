import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest

from common.bus import Bus
from scheduler.settings import Settings
from simulator import Config, serve
from stack.ports import reserve

ENGINE = Config(token_ms=0.1, prefill_ms=0.1)


@pytest.fixture
def ports() -> Iterator[list[int]]:
    reserved = [reserve(), reserve()]
    yield [port.number for port in reserved]
    for port in reserved:
        port.release()


async def test_another_replica_takes_over_from_a_killed_leader(
    settings: Settings, ports: list[int], client: Bus, spawn: Any, ask: Any, routes: Any, eventually: Any
) -> None:
    replicas = {port: spawn(msgspec.structs.replace(settings, metrics_port=port)) for port in ports}
    leader = await eventually(lambda: _leading(replicas), 60)
    (other,) = replicas.keys() - {leader}
    await eventually(lambda: _ready(other), 60)
    async with serve(ENGINE) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await eventually(lambda: _state(routes, node["id"], "ready"))
        replicas[leader].send_signal(signal.SIGKILL)
        replicas.pop(leader).wait()
        assert await eventually(lambda: _leading(replicas)) == other
    await eventually(lambda: _state(routes, node["id"], "unhealthy"))


async def test_a_leader_whose_session_ends_leaves_exactly_one(
    settings: Settings, ports: list[int], client: Bus, spawn: Any, ask: Any, routes: Any, eventually: Any
) -> None:
    replicas = {port: spawn(msgspec.structs.replace(settings, metrics_port=port)) for port in ports}
    for port in replicas:
        await eventually(lambda port=port: _ready(port), 60)
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        for _ in range(3):
            await eventually(lambda: _leading(replicas))
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'scheduler.leader' and datname = current_database()"
            )
    finally:
        await connection.close()
    await eventually(lambda: _exactly_one(replicas))
    async with serve(ENGINE) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await eventually(lambda: _state(routes, node["id"], "ready"))
    await eventually(lambda: _state(routes, node["id"], "unhealthy"))


async def test_a_leader_cut_off_from_postgres_yields_to_the_one_that_is_not(
    settings: Settings, ports: list[int], wire: Any, client: Bus, spawn: Any, ask: Any, routes: Any, eventually: Any
) -> None:
    relay, dsn = wire
    first, second = ports
    spawn(msgspec.structs.replace(settings, postgres_dsn=dsn, metrics_port=first))
    await eventually(lambda: _leading([first]), 60)
    spawn(msgspec.structs.replace(settings, metrics_port=second))
    await eventually(lambda: _ready(second), 60)
    relay.break_all()
    await eventually(lambda: _leading([second]))
    await eventually(lambda: _not_leading(first))
    assert relay.cut


async def _not_leading(port: int) -> bool:
    return "crosslogic_scheduler_leading 0.0" in await _get(port, "/metrics")


async def _exactly_one(replicas: Any) -> bool:
    """Twice in a row, longer apart than a replica takes to find out."""
    first = [port for port in replicas if await _leading({port: None})]
    await asyncio.sleep(0.6)
    second = [port for port in replicas if await _leading({port: None})]
    return len(first) == 1 and first == second


async def _leading(replicas: Any) -> int | None:
    for port in replicas:
        if "crosslogic_scheduler_leading 1.0" in await _get(port, "/metrics"):
            return int(port)
    return None


async def _ready(port: int) -> bool:
    return await _get(port, "/readyz") == "ready\n"


async def _get(port: int, path: str) -> str:
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
            return await response.text()
    except aiohttp.ClientError:
        return ""


async def _state(routes: Any, id: str, state: str) -> bool:
    return any(node.id == id and node.state == state for node in (await routes()).nodes)
