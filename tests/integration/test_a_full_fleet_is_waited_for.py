"""Where every node is busy a request waits its turn: no tenant starves another, and who gives up is gone at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from integration.crowd import Reply, ask, busy, live, waiting
from integration.shop import Shop, until

import simulator
from stack.stack import Stack

COMMENT = b": keep-alive\n\n"
ENV = {"GATEWAY_FIRST_COMMENT_SECONDS": "0.4", "GATEWAY_COMMENT_SECONDS": "0.4"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: Any) -> Stack:
    return await make_stack_of_module(gateways=2, service_env=ENV)


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    """One node, which takes one request at a time."""
    config = simulator.Config(models=(), token_ms=10, prefill_ms=2)
    async with Shop.open(stack, config, max_concurrency=1) as shop:
        yield shop


async def another_tenant(shop: Shop) -> str:
    tenant = await shop.admin("POST", "/admin/tenants", {"name": "other", "email": "o@example.com"})
    created = await shop.admin("POST", "/admin/api-keys", {"tenant_id": tenant["id"], "name": "k"})
    return str(created["key"])


async def test_one_request_is_not_kept_by_a_flood_of_another_tenants(shop: Shop) -> None:
    other = await another_tenant(shop)
    ended: list[str] = []

    async def noted(name: str, key: str) -> Reply:
        reply = await ask(shop, key, 8)
        ended.append(name)
        return reply

    flood = [asyncio.create_task(noted("flood", shop.key)) for _ in range(100)]
    await until(lambda: waiting(shop), lambda count: count > 50)
    before = len(ended)
    single = await noted("single", other)
    # those that ran, one turn of the other tenant, and those that ended while it was on its way
    assert ended.index("single") - before <= 12
    assert single.finished
    assert all(reply.finished for reply in await asyncio.gather(*flood)), "and nobody of the flood is lost"
    assert len(await shop.rows(100)) == 100


async def test_a_stream_that_waits_is_kept_open_and_then_answered(shop: Shop) -> None:
    async with busy(shop) as free:
        task = asyncio.create_task(ask(shop, shop.key, 5))
        await asyncio.sleep(1.0)
        await free()
        reply = await task
    assert reply.finished
    assert reply.body.startswith(COMMENT)
    assert reply.body.rindex(COMMENT) < reply.body.index(b"data:")
    assert reply.headers["content-type"].startswith("text/event-stream")


async def test_a_slot_that_comes_wakes_who_waits(shop: Shop) -> None:
    async with busy(shop) as free:
        task = asyncio.create_task(ask(shop, shop.key, 1, stream=False))
        await until(lambda: waiting(shop), lambda count: count == 1)
        began = time.monotonic()
        await free()
        reply = await task
    assert reply.status == 200
    assert time.monotonic() - began < 5


async def test_who_hangs_up_leaves_the_queue_at_once_and_is_not_billed(shop: Shop) -> None:
    async with busy(shop):
        task = asyncio.create_task(ask(shop, shop.key, 5))
        await until(lambda: waiting(shop), lambda count: count == 1)
        task.cancel()
        await until(lambda: waiting(shop), lambda count: count == 0, deadline=5)
    await until(lambda: live(shop), lambda count: count == 0)
    assert (await ask(shop, shop.key, 5)).finished
    assert [row["outcome"] for row in await shop.rows(2)] == ["client_disconnected", "completed"]


async def test_patience_ends_with_429_and_when_to_come_back(shop: Shop) -> None:
    async with busy(shop):
        at_once = await ask(shop, shop.key, 5, x_queue_timeout="0")
        reply = await ask(shop, shop.key, 5, stream=False, x_queue_timeout="0.3")
        for told in (at_once, reply):
            assert (told.status, told.error["code"]) == (429, "overloaded")
            assert int(told.headers["retry-after"]) >= 1
        assert at_once.seconds < reply.seconds
        assert await waiting(shop) == 0


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("chat/completions", b'data: {"error":{"message":"every node of'),
        ("messages", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"'),
    ],
)
async def test_after_a_comment_the_refusal_is_an_event(shop: Shop, path: str, event: bytes) -> None:
    async with busy(shop):
        reply = await ask(shop, shop.key, 5, path=path, x_queue_timeout="0.7")
    assert reply.status == 200
    assert reply.body.startswith(COMMENT)
    assert event in reply.body
    assert b"[DONE]" not in reply.body


async def test_a_deadline_that_is_no_number_is_refused(shop: Shop) -> None:
    for wrong in ("soon", "-1", "1e3", "nan", ""):
        reply = await ask(shop, shop.key, 5, x_queue_timeout=wrong)
        assert (reply.status, reply.error["param"]) == (400, "x-queue-timeout")


async def test_without_a_node_there_is_no_capacity(shop: Shop) -> None:
    for node in shop.nodes:
        await shop.admin("POST", f"/admin/nodes/{node}/drain")

    async def refused() -> Reply:
        return await ask(shop, shop.key, 5, x_queue_timeout="0.1")

    reply = await until(refused, lambda reply: reply.status == 503)
    assert reply.error["code"] == "no_capacity"
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_node_that_arrives_serves_who_waited_for_it(shop: Shop) -> None:
    for node in shop.nodes:
        await shop.admin("POST", f"/admin/nodes/{node}/drain")
    await until(lambda: ask(shop, shop.key, 1, x_queue_timeout="0"), lambda reply: reply.status == 503)
    waiters = [asyncio.create_task(ask(shop, shop.key, 5)) for _ in range(3)]
    await until(lambda: waiting(shop), lambda count: count == 3)
    async with simulator.serve(simulator.Config(models=(shop.model,), token_ms=2, prefill_ms=2)) as engine:
        node = await shop.admin("POST", "/admin/nodes", {"endpoint": engine.url})
        try:
            assert all(reply.finished for reply in await asyncio.gather(*waiters))
        finally:
            await shop.admin("DELETE", f"/admin/nodes/{node['id']}")


async def test_an_operator_sees_who_waits(shop: Shop) -> None:
    async with busy(shop):
        task = asyncio.create_task(ask(shop, shop.key, 5))
        await until(lambda: waiting(shop), lambda count: count == 1)
        lines = (await shop.admin("GET", "/admin/schedule/queue"))["lines"]
        (line,) = [line for line in lines if line["model"] == shop.model]
        assert line["waiting"] == 1
        assert 0 <= line["oldest_s"] < 20
        assert line["flows"] == [{"tenant_id": shop.tenant_id, "priority": "normal", "waiting": 1}]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_higher_class_comes_sooner(shop: Shop) -> None:
    low = f"/admin/tenants/{shop.tenant_id}"
    other = await another_tenant(shop)
    assert (await shop.admin("PATCH", low, {"priority": "low", "weight": 2}))["weight"] == 2
    ended: list[str] = []

    async def noted(name: str, key: str) -> Reply:
        reply = await ask(shop, key, 3)
        ended.append(name)
        return reply

    async with busy(shop) as free:
        first = [asyncio.create_task(noted("low", shop.key)) for _ in range(6)]
        await until(lambda: waiting(shop), lambda count: count == 6)
        second = [asyncio.create_task(noted("normal", other)) for _ in range(3)]
        await until(lambda: waiting(shop), lambda count: count == 9)
        await free()
        assert all(reply.finished for reply in await asyncio.gather(*first, *second))
    assert ended[:3] == ["normal"] * 3
    for wrong in ({"priority": "first"}, {"weight": 0}, {"weight": 1000}, {"weight": None}):
        status, answer = await shop.call("PATCH", low, wrong, shop.stack.admin_token)
        assert status == 400, answer
