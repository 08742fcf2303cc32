"""Consuming against a real NATS: nothing is lost or kept back, whatever becomes of the connection and the consumer."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from common import bus
from common.bus import Bus
from common.consumer import Consumer

SUBJECT = "usage.recorded.v1.t"


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Bus]:
    async with bus.connect(nats_url, "test") as connected:
        yield connected


@asynccontextmanager
async def consuming(
    client: Bus, handle: Callable[[Sequence[bytes]], Awaitable[None]], batch: int = 10
) -> AsyncIterator[asyncio.Event]:
    stopping = asyncio.Event()
    consumer = Consumer(client, stream="USAGE", durable="c", subject="usage.recorded.v1.>", handle=handle, batch=batch)
    task = asyncio.create_task(consumer.run(stopping))
    try:
        yield stopping
    finally:
        stopping.set()
        await asyncio.wait_for(task, 20)


async def publish(client: Bus, *numbers: int) -> None:
    await asyncio.gather(*(client.publish(SUBJECT, str(number).encode(), f"m{number}") for number in numbers))


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def left(client: Bus) -> tuple[int | None, int | None]:
    info = await client.js.consumer_info("USAGE", "c")
    return info.num_pending, info.num_ack_pending


async def test_all_are_handled_once_in_batches_and_acknowledged(client: Bus) -> None:
    seen: list[list[int]] = []

    async def handle(bodies: Sequence[bytes]) -> None:
        seen.append([int(body) for body in bodies])

    await publish(client, *range(95))
    async with consuming(client, handle):
        await until(lambda: sum(map(len, seen)) == 95)
    assert sorted(number for batch in seen for number in batch) == list(range(95))
    assert max(map(len, seen)) == 10
    assert await left(client) == (0, 0)


async def test_a_deleted_consumer_is_made_again(client: Bus) -> None:
    seen: set[int] = set()

    async def handle(bodies: Sequence[bytes]) -> None:
        seen.update(int(body) for body in bodies)

    async with consuming(client, handle):
        await publish(client, 1)
        await until(lambda: seen == {1})
        await client.js.delete_consumer("USAGE", "c")
        await publish(client, 2)
        await until(lambda: seen == {1, 2})


async def test_a_broken_connection_is_asked_again_without_waiting_for_what_was_asked_before(client: Bus) -> None:
    seen: set[int] = set()

    async def handle(bodies: Sequence[bytes]) -> None:
        seen.update(int(body) for body in bodies)

    async with consuming(client, handle):
        await publish(client, 1)
        await until(lambda: seen == {1})
        for number in range(2, 6):
            await client.client.force_reconnect()
            await until(lambda: client.connected)
            await publish(client, number)
            began = time.monotonic()
            await until(lambda number=number: number in seen)
            assert time.monotonic() - began < 4


async def test_an_idle_consumer_stops_at_once(client: Bus) -> None:
    seen: list[bytes] = []

    async def handle(bodies: Sequence[bytes]) -> None:
        seen.extend(bodies)

    async with consuming(client, handle) as stopping:
        await publish(client, 1)
        await until(lambda: seen)
        async with asyncio.timeout(20):
            while await left(client) != (0, 0):
                await asyncio.sleep(0.01)
        began = time.monotonic()
        stopping.set()
    assert time.monotonic() - began < 0.5


async def test_what_a_stopped_consumer_had_ahead_goes_to_another_at_once(client: Bus) -> None:
    first: list[int] = []
    held, second = asyncio.Event(), []

    async def hold(bodies: Sequence[bytes]) -> None:
        first.extend(int(body) for body in bodies)
        await held.wait()

    async def handle(bodies: Sequence[bytes]) -> None:
        second.extend(int(body) for body in bodies)

    await publish(client, *range(40))
    async with consuming(client, hold) as stopping:
        await until(lambda: first)
        stopping.set()
        held.set()
    assert len(first) == 10
    async with consuming(client, handle):
        await until(lambda: len(second) == 30, 5)  # less than until an acknowledgement is overdue
    assert sorted(first + second) == list(range(40))
