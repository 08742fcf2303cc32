"""What a limited client is told: status, code, which layer, when to come back, and how much is left."""

import asyncio
import os
import signal
import time
from typing import Any

import aiohttp
import msgspec
import pytest
from integration.shop import Shop, until

import simulator

LIMITS = ("limit", "remaining", "reset")


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: Any
    seconds: float

    def ratelimit(self, kind: str) -> tuple[str | None, ...]:
        return tuple(self.headers.get(f"x-ratelimit-{name}-{kind}") for name in LIMITS)


async def ask(shop: Shop, key: str, **fields: Any) -> Reply:
    body = {"model": shop.model, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 4, **fields}
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{shop.url}/v1/chat/completions", json=body) as response,
    ):
        text = await response.read()
        headers = {name.lower(): value for name, value in response.headers.items()}
        stream = response.content_type == "text/event-stream"
        return Reply(response.status, headers, None if stream else msgspec.json.decode(text), time.monotonic() - began)


async def key_with(shop: Shop, **limits: Any) -> str:
    created = await shop.admin("POST", "/admin/api-keys", {"tenant_id": shop.tenant_id, "name": "limited", **limits})
    return str(created["key"])


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_left_is_told_on_every_reply(shop: Shop, stream: bool) -> None:
    key = await key_with(shop, requests_per_minute=10, tokens_per_minute=1000)
    first, second = await ask(shop, key, stream=stream), await ask(shop, key, stream=stream)
    assert (first.status, second.status) == (200, 200)
    assert first.ratelimit("requests") == ("10", "9", "6s")
    assert second.ratelimit("requests")[:2] == ("10", "8")
    limit, remaining, _ = first.ratelimit("tokens")
    assert limit == "1000"
    assert 950 < int(remaining or 0) < 1000


async def test_without_limits_there_is_nothing_to_tell(shop: Shop) -> None:
    reply = await ask(shop, shop.key)
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("limits", "fields", "message"),
    [
        ({"requests_per_minute": 1}, {}, "the key limit of 1 requests a minute is reached"),
        ({"tokens_per_minute": 60}, {"max_tokens": 50}, "the key limit of 60 tokens a minute is reached"),
    ],
)
async def test_a_refusal_says_which_layer_and_how_long(
    shop: Shop, limits: dict[str, int], fields: dict[str, int], message: str
) -> None:
    key = await key_with(shop, **limits)
    body = {**fields, "stream": True}
    replies = [await ask(shop, key, **body) for _ in range(8)]
    refused = [reply for reply in replies if reply.status == 429]
    assert refused
    for reply in refused:
        error = reply.body["error"]
        assert error["code"] == "rate_limit_exceeded"
        assert error["type"] == "rate_limit_error"
        assert error["message"].startswith(message)
        wait = int(reply.headers["retry-after"])
        assert 1 <= wait <= 60
        assert f"try again in {wait} s" in error["message"]
        kind = "requests" if "requests_per_minute" in limits else "tokens"
        assert reply.ratelimit(kind)[0] == str(limits[f"{kind}_per_minute"])


async def test_the_tightest_layer_is_told(shop: Shop) -> None:
    path = f"/admin/tenants/{shop.tenant_id}"
    await shop.admin("PATCH", path, {"limits": {"requests_per_minute": 2}})
    try:
        key = await key_with(shop, requests_per_minute=100)
        replies = [await ask(shop, key) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 429, 429]
        assert replies[0].ratelimit("requests")[:2] == ("2", "1")
        assert replies[2].body["error"]["message"].startswith("the tenant limit of 2 requests a minute")
        assert 25 <= int(replies[2].headers["retry-after"]) <= 30
    finally:
        await shop.admin("PATCH", path, {"limits": {}})


async def test_a_keys_budget_and_a_tenants_credit_run_out(shop: Shop) -> None:
    poor = await key_with(shop, budget_usd="0.000001")
    # 503 as long as the gateway has not heard what the model costs
    reply = await until(lambda: ask(shop, poor, max_tokens=1000), lambda reply: reply.status != 503)
    assert (reply.status, reply.body["error"]["code"]) == (429, "insufficient_quota")
    assert "the key's budget" in reply.body["error"]["message"]
    assert "retry-after" not in reply.headers, "waiting does not help"
    assert (await ask(shop, shop.key, max_tokens=1000)).status == 200

    await shop.rows(1)
    credit = f"/admin/tenants/{shop.tenant_id}/credits"
    granted = await shop.admin("POST", credit, {"amount_usd": "0.0001", "reason": "welcome", "kind": "promotional"})
    assert granted["plan"] == "pay_as_you_go"
    assert (await ask(shop, shop.key, max_tokens=1000)).status == 200, "what credits do not pay is owed"
    put = await shop.admin("PUT", f"/admin/tenants/{shop.tenant_id}/plan", {"plan": "prepaid"})
    assert put["plan"] == "prepaid"

    async def refused() -> Any:
        return await ask(shop, shop.key, max_tokens=1000)

    reply = await until(refused, lambda reply: reply.status == 429)
    assert reply.body["error"]["code"] == "insufficient_quota"
    assert "credit" in reply.body["error"]["message"]
    await shop.admin("POST", credit, {"amount_usd": "1", "reason": "paid"})
    await until(refused, lambda reply: reply.status == 200)


async def test_a_paused_redis_does_not_pause_requests_and_limits_close_in_the_end(make_stack: Any) -> None:
    stack = await make_stack(service_env={"GATEWAY_FAIL_OPEN_SECONDS": "3"})
    async with Shop.open(stack, simulator.Config(models=(), token_ms=1, prefill_ms=1)) as shop:
        limited = await key_with(shop, requests_per_minute=1000)
        for key in (shop.key, limited):
            assert (await ask(shop, key)).status == 200
        (pid,) = stack.pids("valkey")
        os.kill(pid, signal.SIGSTOP)
        try:
            free: list[Reply] = []
            open_: list[Reply] = []
            began = time.monotonic()
            while time.monotonic() - began < 6:
                one, two = await asyncio.gather(ask(shop, shop.key), ask(shop, limited))
                free.append(one)
                open_.append(two)
            assert {reply.status for reply in free} == {200}
            # a request pays for finding out, the others for nothing
            slow = [reply.seconds for reply in free + open_ if reply.seconds > 0.25]
            assert len(slow) <= max(2, len(free) // 50), slow
            assert max(reply.seconds for reply in free + open_) < 1
            statuses = [reply.status for reply in open_]
            closed = statuses.index(503)
            assert statuses == [200] * closed + [503] * (len(statuses) - closed)
            assert open_[-1].body["error"]["code"] == "unavailable"
            assert open_[-1].headers["retry-after"] == "5"
        finally:
            os.kill(pid, signal.SIGCONT)
        kept = await until(lambda: ask(shop, limited), lambda reply: reply.status == 200)
        assert kept.ratelimit("requests")[0] == "1000"
