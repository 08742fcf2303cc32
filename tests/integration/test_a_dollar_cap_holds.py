"""Nobody spends past a cap: not with a rush on three gateways, and not when one of them is killed in it."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
import redis.asyncio
from integration.shop import Shop, until

import simulator
from common.leases import leases_key
from stack.stack import Stack

PICO = 10**12
DEFAULT_OUTPUT = 30
PRICE = {"input_usd_per_million": "1", "output_usd_per_million": "1000"}
"""A tenth of a cent a token, so that a dollar is soon spent."""
LEASE = (DEFAULT_OUTPUT * 1000 + 100) * PICO // 10**6
"""More than one request of these can cost: its output, and its prompt of less than a hundred bytes."""
BODY = {"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True}


async def ask(shop: Shop, key: str, hang_up_after: int = 0, **fields: Any) -> tuple[int, bytes]:
    """Status and body; with `hang_up_after` the client leaves after so many chunks."""
    body = {"model": shop.model, **BODY, **fields}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{shop.url}/v1/chat/completions", json=body) as response,
    ):
        parts = []
        async for part in response.content.iter_any():
            parts.append(part)
            if len(parts) == hang_up_after and response.status == 200:
                break
        return response.status, b"".join(parts)


async def held(shop: Shop) -> list[int]:
    """Micro-dollars: held, and spent without billing having told so."""
    async with redis.asyncio.Redis.from_url(shop.stack.redis_url) as client:
        key = leases_key(shop.stack.redis_namespace)
        (sums,) = await client.fcall("cl_held", 1, key, shop.tenant_id)  # type: ignore[misc]
        return list(sums)


async def capped(shop: Shop, usd: str) -> int:
    """Raise the price and set a cap of so many dollars from now on; returns what was spent before, in pico-dollars.

    Every gateway knows the price, and none a higher cap: at first all refuse under a cap between what a request of one
    token may cost by the old price and by the new one.
    """
    await shop.admin("PUT", "/admin/prices", {"model": shop.model, **PRICE})
    path = f"/admin/tenants/{shop.tenant_id}/budget"
    await shop.admin("PUT", path, {"monthly_usd": "0.0009", "hard": True})

    async def statuses() -> set[int]:
        return {status for status, _ in await asyncio.gather(*[ask(shop, shop.key, max_tokens=1) for _ in range(24)])}

    await until(statuses, lambda found: found == {429})
    await until(lambda: held(shop), lambda sums: sums == [0, 0])
    before = await spent(shop)
    limit = before + int(float(usd) * PICO)
    await shop.admin("PUT", path, {"monthly_usd": f"{limit // PICO}.{limit % PICO:012d}", "hard": True})
    await until(statuses, lambda found: found == {200})  # every gateway knows the cap
    return before


async def spent(shop: Shop) -> int:
    balance = await shop.admin("GET", f"/admin/tenants/{shop.tenant_id}/balance")
    whole, _, fraction = balance["spent_usd"].partition(".")
    return int(whole) * PICO + int(fraction.ljust(12, "0"))


async def rush(shop: Shop, number: int) -> list[tuple[int, bytes] | BaseException]:
    """Every fourth client gives a limit, every third one hangs up."""
    asked = [
        ask(
            shop,
            shop.key,
            hang_up_after=5 if at % 3 == 0 else 0,
            **({"max_tokens": DEFAULT_OUTPUT} if at % 4 == 0 else {}),
        )
        for at in range(number)
    ]
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("killed", [False, True])
async def test_two_hundred_streams_on_three_gateways_spend_a_dollar(make_stack: Any, killed: bool) -> None:
    stack: Stack = await make_stack(gateways=3, service_env={"GATEWAY_DEFAULT_MAX_OUTPUT": str(DEFAULT_OUTPUT)})
    async with Shop.open(stack, simulator.Config(models=(), token_ms=20, prefill_ms=5)) as shop:
        before = await capped(shop, "1.00")
        rushing = asyncio.create_task(rush(shop, 200))
        if killed:
            await until(lambda: held(shop), lambda sums: sums[0] > 0)
            await stack.kill("gateway", 1)
        answers = await rushing
        refused = [body for status, body in (a for a in answers if isinstance(a, tuple)) if status == 429]
        assert refused
        assert {msgspec.json.decode(body)["error"]["code"] for body in refused} == {"insufficient_quota"}

        # what holds have set free is spent by those who come later, up to the cap
        async def nothing_passes() -> bool:
            if await held(shop) != [0, 0]:
                return False
            later = await rush(shop, 24)
            return all(isinstance(a, tuple) and a[0] == 429 for a in later)

        await until(nothing_passes, bool, deadline=60)
        total = await spent(shop) - before
        assert PICO - LEASE <= total <= PICO
        assert await held(shop) == [0, 0]
        rows = await shop.rows(1)
        assert await spent(shop) == sum(int(row["cost_picousd"]) for row in rows)
        assert max(row["output_tokens"] for row in rows) <= DEFAULT_OUTPUT, "a reply without a limit got one"
