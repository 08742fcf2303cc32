import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from common.bus import Bus, encode
from scheduler.leases import Leases, open_leases
from scheduler.reaper import Reaper
from scheduler.settings import Settings
from scheduler.settlement import message_id, settled


@pytest.fixture
async def leases(valkey: Any) -> AsyncIterator[Leases]:
    async with open_leases(valkey.url, "crosslogic") as opened:
        await opened.load_functions(replace=True)
        yield opened


@asynccontextmanager
async def reaping(client: Bus, leases: Leases, replicas: int = 1) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(replicas):
            tasks.create_task(Reaper(client, leases, 0.02, 0.2).run(stopping))
        try:
            yield
        finally:
            stopping.set()


async def test_each_abandoned_request_is_settled_once_by_two_reapers(
    client: Bus, leases: Leases, gateway: Any, stored: Any, eventually: Any
) -> None:
    drafts = await gateway.die_with(500)
    async with reaping(client, leases, replicas=2):
        await eventually(lambda: _none(gateway))
    records = await stored("USAGE")
    assert sorted(record["id"] for record in records) == sorted(str(draft.id) for draft in drafts)
    assert {record["outcome"] for record in records} == {"gateway_lost"}
    assert {record["usage_source"] for record in records} == {"continuous"}
    assert {(record["input_tokens"], record["cached_tokens"], record["output_tokens"]) for record in records} == {
        (17, 5, 40)
    }
    assert {record["node_id"] for record in records} == {"node-1"}


async def test_a_crash_between_publishing_and_returning_publishes_the_same_message_again(
    client: Bus, leases: Leases, gateway: Any, stored: Any, eventually: Any
) -> None:
    await gateway.die_with(1)
    (lease,) = await leases.reap(10, claim=0.05)
    record = settled(lease, datetime.now(UTC))
    await client.publish(record.subject, encode(record), message_id(record))
    # here the first reaper died
    async with reaping(client, leases):
        await eventually(lambda: _none(gateway))
    assert len(await stored("USAGE")) == 1


async def test_a_reaper_killed_at_work_loses_nothing_and_doubles_nothing(
    settings: Settings, client: Bus, leases: Leases, gateway: Any, spawn: Any, stored: Any, eventually: Any
) -> None:
    settings = msgspec.structs.replace(settings, claim=1.0)
    heard = asyncio.Event()
    await client.listen("usage.recorded.v1.>", lambda _: heard.set())
    drafts = await gateway.die_with(400)
    first = spawn(settings)
    await asyncio.wait_for(heard.wait(), 30)
    first.send_signal(signal.SIGKILL)
    first.wait()
    spawn(settings)
    await eventually(lambda: _none(gateway), 30)
    records = await stored("USAGE")
    assert sorted(record["id"] for record in records) == sorted(str(draft.id) for draft in drafts)


async def test_a_gateway_that_comes_back_keeps_its_lease(client: Bus, leases: Leases, gateway: Any) -> None:
    (draft,) = await gateway.die_with(1)
    assert len(await leases.reap(10, claim=10)) == 1
    assert await gateway.call("cl_renew", 60_000, str(draft.id), "[17,5,41]") == []
    assert await leases.settle([str(draft.id)]) == 0
    assert await leases.live(["node-1"]) == {"node-1": 1}


async def test_a_late_true_record_is_not_taken_for_a_duplicate(
    client: Bus, leases: Leases, gateway: Any, stored: Any, eventually: Any
) -> None:
    (draft,) = await gateway.die_with(1)
    async with reaping(client, leases):
        await eventually(lambda: _none(gateway))
    await client.publish(draft.subject, encode(draft), str(draft.id))
    assert [record["outcome"] for record in await stored("USAGE")] == ["gateway_lost", "completed"]


async def test_an_unreadable_intent_is_parked(
    client: Bus, leases: Leases, gateway: Any, stored: Any, eventually: Any
) -> None:
    await gateway.call("cl_take", "x", 0, b'{"what": 1}', 0.5, "", "node-1", 0, 1)
    drafts = await gateway.die_with(1)
    async with reaping(client, leases):
        await eventually(lambda: _none(gateway))
    assert await stored("DEAD") == [{"what": 1}]
    message = await client.js.get_msg("DEAD", seq=1)
    assert message.subject == "dead.usage.recorded.v1.unknown"
    assert "lease x cannot be read" in (message.headers or {})["Crosslogic-Reason"]
    assert [record["id"] for record in await stored("USAGE")] == [str(draft.id) for draft in drafts]


async def test_without_nats_leases_wait(
    nats: Any, client: Bus, leases: Leases, gateway: Any, stored: Any, eventually: Any
) -> None:
    async with reaping(client, leases):
        nats.kill()
        await eventually(lambda: _is(lambda: not client.connected))
        await gateway.die_with(20)
        assert await gateway.left() == 20
        nats.start()
        await eventually(lambda: _none(gateway), 30)
    assert len(await stored("USAGE")) == 20


async def test_a_redis_that_lost_everything_has_the_functions_again(
    client: Bus, valkey: Any, leases: Leases, gateway: Any, stored: Any, eventually: Any
) -> None:
    async with reaping(client, leases):
        valkey.kill()
        valkey.start()
        await eventually(lambda: _functions(gateway))
        await gateway.die_with(1)
        await eventually(lambda: _none(gateway))
    assert len(await stored("USAGE")) == 1


async def test_a_boot_replaces_the_functions_of_an_older_version(
    client: Bus, leases: Leases, gateway: Any, eventually: Any
) -> None:
    older = "#!lua name=crosslogic\nredis.register_function('cl_load', function() return {} end)"
    await gateway.redis.function_load(older, replace=True)
    async with reaping(client, leases):

        async def whole() -> bool:
            return "cl_settle" in str(await gateway.redis.function_list(library="crosslogic"))

        await eventually(whole)


async def _none(gateway: Any) -> bool:
    return bool(await gateway.left() == 0)


async def _is(condition: Any) -> bool:
    return bool(condition())


async def _functions(gateway: Any) -> bool:
    return bool(await gateway.redis.function_list(library="crosslogic"))
