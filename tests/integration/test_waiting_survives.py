"""Whatever is killed while requests wait: none is lost but those of a killed gateway, and no slot is given twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from integration.crowd import Reply, ask, busy, live, waiting
from integration.shop import Shop, until
from redis.exceptions import RedisError

import simulator
from stack.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: Any) -> Stack:
    return await make_stack_of_module(gateways=2)


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    """One node, which takes one request at a time."""
    config = simulator.Config(models=(), token_ms=10, prefill_ms=2)
    async with Shop.open(stack, config, max_concurrency=1) as shop:
        yield shop


async def queued(shop: Shop, count: int) -> list[asyncio.Task[Reply]]:
    """One after the other, so that it is known who was first."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(ask(shop, shop.key, 3)))
        await until(lambda: waiting(shop), lambda found, number=number: found == number + 1)  # type: ignore[misc]
    return tasks


async def agreed(shop: Shop, waiters: list[asyncio.Task[Reply]]) -> bool:
    """As many wait as there are clients whose connections are not cut."""
    return await waiting(shop) == sum(not task.done() for task in waiters)


async def test_turns_come_without_a_scheduler(shop: Shop) -> None:
    async with busy(shop) as free:
        waiters = await queued(shop, 3)
        await shop.stack.kill("scheduler")
        await shop.stack.stop("scheduler")
        try:
            await free()
            assert all(reply.finished for reply in await asyncio.gather(*waiters))
        finally:
            await shop.stack.restart("scheduler")


async def test_places_are_kept_over_an_empty_redis(shop: Shop) -> None:
    order: list[int] = []

    async def noted(number: int, task: asyncio.Task[Reply]) -> Reply:
        reply = await task
        order.append(number)
        return reply

    async def known() -> tuple[int, int]:
        try:
            return await waiting(shop), await live(shop)
        except RedisError:
            return 0, 0

    async with busy(shop) as free:
        waiters = await queued(shop, 4)
        noting = [asyncio.create_task(noted(number, task)) for number, task in enumerate(waiters)]
        await shop.stack.kill("valkey")
        await until(known, lambda found: found == (4, 1), deadline=10)
        assert order == [], "the slot of the running request was not given away"
        await free()
        assert all(reply.finished for reply in await asyncio.gather(*noting))
    assert order == [0, 1, 2, 3]


async def test_a_killed_gateways_waiters_vanish_and_the_others_go_on(shop: Shop) -> None:
    async with busy(shop) as free:
        waiters = await queued(shop, 8)
        await shop.stack.kill("gateway", 1)
        await until(lambda: agreed(shop, waiters), bool, deadline=10)
        going = [task for task in waiters if not task.done()]
        await free()
        assert all(reply.finished for reply in await asyncio.gather(*going))
        ends = await asyncio.gather(*waiters, return_exceptions=True)
        # who ran may have been the killed gateway's, and its slot went to one who waited; the others lost their
        # connection, or with a comment sent already, have a head and no end
        served = [end for end in ends if isinstance(end, Reply) and end.finished]
        assert all(isinstance(end, Reply | aiohttp.ClientError) for end in ends), ends
    await until(lambda: live(shop), lambda count: count == 0)
    rows = await shop.rows(len(served) + 1)
    outcomes = [row["outcome"] for row in rows]
    assert outcomes.count("completed") == len(served)
    assert len(rows) == len(served) + 1, "none of those that waited at the killed gateway"
    await shop.stack.ready("gateway", 1)
