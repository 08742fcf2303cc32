"""What a tenant sends in its headers stays at the gateway: an engine sees the node's own key, and a trace."""

import aiohttp
from integration.shop import Shop

import simulator
from stack.stack import Stack

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TENANTS = {
    "Cookie": "session=secret",
    "X-Forwarded-For": "203.0.113.9",
    "X-Api-Key": "sk-of-somebody",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "Connection": "x-own",
    "X-Own": "secret",
    "TE": "trailers",
    "traceparent": TRACE,
}


async def test_only_what_an_engine_needs(stack: Stack) -> None:
    config = simulator.Config(token_ms=1, prefill_ms=1)
    async with Shop.open(stack, config) as shop:
        headers = {**TENANTS, "Authorization": f"Bearer {shop.key}"}
        body = {"model": shop.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{shop.url}/v1/chat/completions", json=body, headers=headers) as response,
        ):
            assert response.status == 200
            request_id = response.headers["x-request-id"]
        record = await shop.engine.ended(request_id)
        assert record.headers is not None
        assert set(record.headers) == {"host", "content-type", "content-length", "x-request-id", "traceparent"}
        assert record.headers["traceparent"] == TRACE
        assert shop.key not in str(record.headers)


async def test_a_nodes_own_key_is_used_for_it_and_never_shown(stack: Stack) -> None:
    config = simulator.Config(token_ms=1, prefill_ms=1, api_key="the-key-of-this-node-alone")
    async with Shop.open(stack, config) as shop:
        status, answer = await shop.call(
            "POST",
            "/v1/chat/completions",
            {"model": shop.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
        )
        assert status == 200, answer
        record = shop.engine.requests[-1]
        assert record.headers is not None
        assert record.headers["authorization"] == "Bearer the-key-of-this-node-alone"
        assert "the-key-of-this-node-alone" not in str(await shop.admin("GET", "/admin/nodes"))
