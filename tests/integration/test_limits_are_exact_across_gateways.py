"""A limit is one limit, however many gateways keep it: not one request more, and no slot lost."""

import asyncio
import time
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from integration.shop import Shop, until

import simulator
from stack.stack import Stack

GATEWAYS = 3
FAILURES = 10
"""Wrong credentials that one address may try at once, by default."""
SECONDS_A_FAILURE = 6.0
BODY = {"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: Any) -> Stack:
    return await make_stack_of_module(gateways=GATEWAYS)


@pytest.fixture
async def shop(stack: Stack) -> Any:
    async with Shop.open(stack, simulator.Config(models=(), token_ms=2, prefill_ms=2)) as shop:
        yield shop


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)["error"]


async def ask(shop: Shop, key: str, max_tokens: int | None = 4, **fields: Any) -> Reply:
    """Over a connection of its own, so that any gateway may take it."""
    body = {"model": shop.model, **BODY, "max_tokens": max_tokens, **fields}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{shop.url}/v1/chat/completions", json=body) as response,
    ):
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, headers, await response.read())


async def key_with(shop: Shop, **limits: Any) -> str:
    created = await shop.admin("POST", "/admin/api-keys", {"tenant_id": shop.tenant_id, "name": "limited", **limits})
    return str(created["key"])


async def test_exactly_as_many_requests_pass_as_a_minute_allows(shop: Shop) -> None:
    limit = 20
    key = await key_with(shop, requests_per_minute=limit)
    replies = await asyncio.gather(*[ask(shop, key) for _ in range(3 * limit)])
    passed = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 429]
    assert len(passed) + len(refused) == 3 * limit
    # one more comes free every three seconds
    assert limit <= len(passed) <= limit + 1
    assert {reply.error["code"] for reply in refused} == {"rate_limit_exceeded"}
    remaining = sorted(int(reply.headers["x-ratelimit-remaining-requests"]) for reply in passed)
    assert remaining[-limit:] == list(range(limit)), "each of the gateways counts on from what the others have let in"


async def test_tokens_are_reserved_by_all_gateways_together(shop: Shop) -> None:
    key = await key_with(shop, tokens_per_minute=2000)
    # each is a prompt of some ten tokens and 990 of output: two fit, whoever takes them
    replies = await asyncio.gather(*[ask(shop, key, max_tokens=960) for _ in range(12)])
    assert sorted(reply.status for reply in replies) == [200] * 2 + [429] * 10


async def test_as_many_run_at_once_as_may_and_hang_ups_give_their_slots_back(shop: Shop) -> None:
    limit = 5
    key = await key_with(shop, max_concurrency=limit)
    answered: asyncio.Queue[int] = asyncio.Queue()

    async def endless() -> None:
        body = {"model": shop.model, **BODY, "max_tokens": 8000}
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.post(f"{shop.url}/v1/chat/completions", json=body) as response,
        ):
            answered.put_nowait(response.status)
            async for _ in response.content.iter_any():
                pass

    for _ in range(2):
        streams = [asyncio.create_task(endless()) for _ in range(3 * limit)]
        statuses = [await asyncio.wait_for(answered.get(), 20) for _ in streams]
        assert sorted(statuses) == [200] * limit + [429] * (2 * limit)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

        async def all_at_once() -> list[int]:
            return sorted(reply.status for reply in await asyncio.gather(*[ask(shop, key) for _ in range(limit)]))

        # a hang-up is told to Redis when its record is stored
        await until(all_at_once, lambda statuses: statuses == [200] * limit)


async def test_a_killed_gateways_slots_come_back(make_stack: Any) -> None:
    stack = await make_stack(gateways=2, restart=False)
    async with Shop.open(stack, simulator.Config(models=(), token_ms=20, prefill_ms=2)) as shop:
        limit = 6
        key = await key_with(shop, max_concurrency=limit)
        started = asyncio.Event()
        running = 0

        async def endless() -> None:
            nonlocal running
            body = {"model": shop.model, **BODY, "max_tokens": 8000}
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
                session.post(f"{shop.url}/v1/chat/completions", json=body) as response,
            ):
                assert response.status == 200
                running += 1
                if running == limit:
                    started.set()
                async for _ in response.content.iter_any():
                    pass

        streams = [asyncio.create_task(endless()) for _ in range(limit)]
        await asyncio.wait_for(started.wait(), 20)
        assert (await ask(shop, key)).status == 429
        await stack.kill("gateway", 0)
        await stack.kill("gateway", 1)
        await asyncio.gather(*streams, return_exceptions=True)
        await stack.restart("gateway", 0)

        async def all_at_once() -> list[int]:
            return sorted(reply.status for reply in await asyncio.gather(*[ask(shop, key) for _ in range(limit)]))

        await until(all_at_once, lambda statuses: statuses == [200] * limit)


async def test_who_guesses_credentials_is_slowed_down_by_all_gateways_together(shop: Shop) -> None:
    own, shop.address = shop.address, "2001:db8:bad::1"
    began = time.monotonic()
    try:
        answers = [await shop.call("GET", "/admin/tenants", token="wrong") for _ in range(GATEWAYS * FAILURES)]
    finally:
        shop.address = own
    given_back = (time.monotonic() - began) / SECONDS_A_FAILURE
    wrong = sum(status == 401 for status, _ in answers)
    # one more for each gateway that had not heard of the last failure yet
    assert FAILURES <= wrong <= FAILURES + given_back + GATEWAYS
    assert {answer["error"]["code"] for status, answer in answers if status == 429} == {"too_many_failures"}
