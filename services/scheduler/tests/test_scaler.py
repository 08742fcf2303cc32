import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest

from common.bus import Bus
from common.deployments import BUCKET, KEY, Deployment, Snapshot
from common.events import ScaleRequested
from common.ids import new_id
from scheduler.settings import Settings
from simulator import Config
from stack.ports import reserve

MODEL = "demo-8b"
ENGINE = Config(token_ms=0.1, prefill_ms=0.1)


class Provisioner:
    """What it tells of its deployments."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known = Deployment(
            id=new_id(),
            name="n",
            model=MODEL,
            min_replicas=0,
            max_replicas=5,
            idle_timeout_s=3600,
            target_concurrency=4,
        )

    async def tell(self, **changes: Any) -> None:
        self._known = msgspec.structs.replace(self._known, **changes)
        await self._bus.put(BUCKET, KEY, msgspec.json.encode(Snapshot(1, (self._known,))))


@pytest.fixture
async def provisioner(client: Bus) -> Provisioner:
    told = Provisioner(client)
    await told.tell()
    return told


@pytest.fixture
def ports() -> Iterator[list[int]]:
    reserved = [reserve(), reserve()]
    yield [port.number for port in reserved]
    for port in reserved:
        port.release()


async def wait(gateway: Any, count: int) -> None:
    """So many requests wait for a slot."""
    for _ in range(count):
        waiter = (MODEL, "tenant", 1, 0, 60_000, 1000, 1000, "gateway")
        await gateway.call("cl_wait", str(new_id()), 60_000, "{}", 0.5, *waiter, 10, 0, "", "", 0, 0, 0)


async def asked(stored: Any) -> list[ScaleRequested]:
    found = [event for event in await stored("FLEET") if event["type"] == "scale.requested.v1"]
    return [msgspec.convert(event, ScaleRequested) for event in found]


async def functions_are_loaded(gateway: Any) -> bool:
    with suppress(Exception):
        return bool(await gateway.redis.function_list(library="crosslogic"))
    return False


async def test_the_first_who_waits_has_a_replica_asked_for_at_once(
    service: Settings, provisioner: Provisioner, gateway: Any, routes: Any, stored: Any, eventually: Any
) -> None:
    async def known() -> bool:
        return bool((await routes()).deployed == (MODEL,))

    await eventually(known)
    await eventually(lambda: functions_are_loaded(gateway))
    assert await asked(stored) == []
    begin = datetime.now(UTC)
    await wait(gateway, 1)
    (first,) = await eventually(lambda: asked(stored))
    assert (first.model, first.replicas, first.reason) == (MODEL, 1, "1 wait, 0 run, and there is no replica")
    assert (first.time - begin).total_seconds() < 1.0
    # the same for as long as nothing changes, and back where the provisioner says so
    await provisioner.tell(replicas=1)
    await provisioner.tell(min_replicas=3)

    async def second() -> Any:
        return (await asked(stored))[1:]

    (event,) = await eventually(second)
    assert (event.replicas, event.reason) == (3, "at least 3")
    assert event.epoch > first.epoch


async def test_what_a_leader_wrote_and_did_not_publish_its_heir_publishes(
    settings: Settings,
    client: Bus,
    provisioner: Provisioner,
    routes: Any,
    stored: Any,
    eventually: Any,
    run_service: Any,
) -> None:
    async with run_service(settings):
        await provisioner.tell(min_replicas=1)
        (first,) = await eventually(lambda: asked(stored))
    lost = first.epoch + 1
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        await connection.execute("update scheduler.scaling set epoch = $1, event_id = $2", lost, new_id())
    finally:
        await connection.close()
    async with run_service(settings):

        async def again() -> Any:
            return [event for event in await asked(stored) if event.epoch == lost]

        (event,) = await eventually(again)
        assert (event.replicas, event.reason) == (first.replicas, first.reason)


async def test_epochs_grow_whichever_replica_leads(
    settings: Settings,
    ports: list[int],
    client: Bus,
    provisioner: Provisioner,
    gateway: Any,
    spawn: Any,
    stored: Any,
    eventually: Any,
) -> None:
    replicas = {port: spawn(msgspec.structs.replace(settings, metrics_port=port)) for port in ports}
    leader = await eventually(lambda: leading(replicas), 60)
    await eventually(lambda: functions_are_loaded(gateway))
    await wait(gateway, 1)
    await eventually(lambda: asked(stored))
    await provisioner.tell(replicas=1)
    replicas[leader].send_signal(signal.SIGKILL)
    replicas.pop(leader).wait()
    await eventually(lambda: leading(replicas))
    await provisioner.tell(min_replicas=2)
    await provisioner.tell(min_replicas=2, replicas=2)

    async def two() -> bool:
        return len(await asked(stored)) >= 2

    await eventually(two)
    await provisioner.tell(min_replicas=4)

    async def three() -> bool:
        return len(await asked(stored)) >= 3

    await eventually(three)
    events = await asked(stored)
    assert [event.replicas for event in events] == [1, 2, 4]
    assert [event.epoch for event in events] == sorted({event.epoch for event in events})


async def leading(replicas: Any) -> int | None:
    for port in replicas:
        with suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as response:
                if "crosslogic_scheduler_leading 1.0" in await response.text():
                    return int(port)
    return None
