"""Billing with NATS and Postgres: charged once whatever is redelivered or killed, parked where it cannot be."""

import asyncio
import contextlib
import signal
import socket
from typing import Any

import aiohttp
import msgspec
import pytest

from billing import app
from common import bus
from common.bus import Bus
from common.db import Pool

COST = 12 * 100_000 + 5 * 10_000 + 64 * 400_000


@pytest.mark.usefixtures("service")
async def test_the_whole_stream_replayed_changes_nothing(
    put_price: Any, record: Any, send: Any, settled: Any, books: Any
) -> None:
    await put_price()
    events = [record() for _ in range(200)]
    lost = [msgspec.structs.replace(event, outcome="gateway_lost") for event in events[:50]]
    await send(*lost, again=".gateway_lost")
    await send(*events)
    await settled()
    before = await books()
    assert before.cost == 200 * COST
    for round in range(2):
        await send(*lost, *events, again=f".{round}")
    await settled()
    assert await books() == before


@pytest.mark.usefixtures("service")
async def test_what_cannot_be_charged_is_parked_and_the_rest_is_charged(
    put_price: Any, record: Any, send: Any, settled: Any, books: Any, ask: Any, client: Bus
) -> None:
    await put_price()
    good = [record() for _ in range(20)]
    absurd = msgspec.structs.replace(record(), cached_tokens=18)
    await send(*good[:10])
    for body in (b"garbage", b"{}", bus.encode(absurd)):
        await client.publish("usage.recorded.v1.x", body, f"bad-{body[:60]!r}")
    await send(*good[10:])
    await settled()
    assert (await books()).cost == 20 * COST
    status, answer = await ask("GET", "/admin/dead-letters")
    assert status == 200
    assert {letter["body"]: letter["reason"] for letter in answer["dead_letters"]} == {
        "garbage": "not a usage record: JSON is malformed: invalid character (byte 0)",
        "{}": "not a usage record: Object missing required field `id`",
        bus.encode(absurd).decode(): "cached_tokens 18 exceed input_tokens 17",
    }
    status, page = await ask("GET", "/admin/dead-letters", limit=2)
    status, rest = await ask("GET", "/admin/dead-letters", limit=2, cursor=page["next_cursor"])
    assert page["dead_letters"] + rest["dead_letters"] == answer["dead_letters"]
    assert rest["next_cursor"] is None


@pytest.mark.usefixtures("service")
async def test_usage_without_a_price_is_charged_after_the_price_is_put(
    record: Any, send: Any, settled: Any, books: Any, ask: Any
) -> None:
    event = record()
    await send(event)
    await settled()
    _, answer = await ask("GET", "/admin/dead-letters")
    (letter,) = answer["dead_letters"]
    assert letter["reason"].startswith("no price for model demo-8b in force at ")
    assert letter["consumer"] == "billing"
    price = {
        "model": "demo-8b",
        "input_usd_per_million": 0.1,
        "cached_input_usd_per_million": "0.01",
        "output_usd_per_million": "0.4",
        "effective_from": event.started_at.isoformat(),
    }
    status, _ = await ask("PUT", "/admin/prices", price)
    assert status == 200
    status, _ = await ask("POST", f"/admin/dead-letters/{letter['id']}/replay")
    assert status == 200
    await settled()
    assert (await books()).cost == COST
    assert (await ask("GET", "/admin/dead-letters"))[1]["dead_letters"] == []
    for id in (letter["id"], "x", "9" * 40):
        status, _ = await ask("POST", f"/admin/dead-letters/{id}/replay")
        assert status == 404


@pytest.mark.usefixtures("service")
async def test_large_parked_events_are_listed_in_brief_and_given_whole(
    send: Any, record: Any, put_price: Any, settled: Any, books: Any, ask: Any, client: Bus
) -> None:
    await put_price()
    most = client.client.max_payload
    bodies = ["a" * 600_000, "b" * 600_000, "\1" * 400_000, "c" * most, "short"]
    for body in bodies:
        await client.client.publish("usage.recorded.v1.x", body.encode())
        await settled()  # parked in this order
    await send(record())
    await settled()
    assert (await books()).cost == COST
    status, answer = await ask("GET", "/admin/dead-letters")
    assert status == 200
    letters = answer["dead_letters"]
    assert answer["next_cursor"] is None
    assert [(letter["body"], letter["truncated"]) for letter in letters] == [
        (body[:4096], body != "short") for body in bodies
    ]
    wholes = [(await ask("GET", f"/admin/dead-letters/{letter['id']}"))[1] for letter in letters]
    assert [letter["truncated"] for letter in wholes] == [False, False, True, True, False]
    assert (wholes[0]["body"], wholes[4]["body"]) == (bodies[0], "short")
    assert (await ask("POST", f"/admin/dead-letters/{letters[3]['id']}/replay"))[0] == 409
    assert (await ask("GET", "/admin/dead-letters/999"))[0] == 404
    status, replayed = await ask("POST", f"/admin/dead-letters/{letters[0]['id']}/replay")
    assert (status, replayed["body"]) == (200, "a" * 4096)
    await client.client.publish("rpc.billing", b"no call")
    assert (await ask("GET", "/admin/dead-letters", limit=1))[0] == 200


@pytest.mark.usefixtures("service")
async def test_a_page_of_parked_events_is_cut_to_what_an_answer_holds(ask: Any, client: Bus) -> None:
    for number in range(60):
        await client.park("x", b"\1" * 5000, "test", "test", str(number))
    found: list[int] = []
    cursor = "0"
    while cursor is not None:
        status, answer = await ask("GET", "/admin/dead-letters", limit=1000, cursor=cursor)
        assert status == 200
        found += [letter["id"] for letter in answer["dead_letters"]]
        cursor = answer["next_cursor"]
    assert found == list(range(1, 61))


@pytest.mark.usefixtures("impatient")
async def test_a_process_killed_inside_its_transaction_charges_once(
    pool: Pool, put_price: Any, record: Any, send: Any, settled: Any, books: Any, spawn: Any, eventually: Any
) -> None:
    await put_price()
    await send(*(record() for _ in range(100)))
    async with pool.acquire() as blocker, pool.acquire() as observer, blocker.transaction():
        await blocker.execute("lock table billing.usage_hourly in exclusive mode")
        process = spawn()

        async def inside() -> bool:
            waiting = await observer.fetchval(
                "select count(*) from pg_locks where not granted and relation = 'billing.usage_hourly'::regclass"
            )
            return bool(waiting)

        await eventually(inside)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (await books()).usage == []
    spawn()
    await settled()
    assert (await books()).cost == 100 * COST


@pytest.mark.usefixtures("impatient")
async def test_two_processes_killed_and_restarted_under_load_charge_once(
    pool: Pool, put_price: Any, record: Any, send: Any, settled: Any, books: Any, spawn: Any, eventually: Any
) -> None:
    await put_price()
    processes = [spawn(), spawn()]
    sent, killing = 0, asyncio.Event()

    async def load() -> None:
        nonlocal sent
        while not killing.is_set():
            events = [record() for _ in range(200)]
            await send(*events)
            await send(*events[:20], again=".again")
            sent += 200

    loading = asyncio.create_task(load())
    for victim in (0, 1, 0, 1):
        charged = await pool.fetchval("select count(*) from billing.usage")

        async def more(than: int = charged) -> bool:
            return bool(await pool.fetchval("select count(*) > $1 from billing.usage", than))

        await eventually(more)
        processes[victim].send_signal(signal.SIGKILL)
        processes[victim].wait()
        processes[victim] = spawn()
    killing.set()
    await loading
    await settled()
    found = await books()
    assert found.cost == sent * COST
    assert sum(row[-1] for row in found.hourly) == sum(row[-1] for row in found.outbox) == sent * COST


async def test_the_internal_port_tells_readiness_and_metrics(settings: Any, client: Bus) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stopping = asyncio.Event()
    task = asyncio.create_task(app.run(msgspec.structs.replace(settings, metrics_port=port), stopping))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, asyncio.timeout(20):
        ready = False
        while not ready:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get("/readyz") as response:
                    ready = response.status == 200
            await asyncio.sleep(0.02)
        async with session.get("/metrics") as response:
            assert "crosslogic_usage_recorded_total" in await response.text()
    stopping.set()
    await task
