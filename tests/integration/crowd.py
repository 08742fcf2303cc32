"""Requests that come while every node is busy, and what Redis knows of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from integration.shop import Shop, until
from redis.asyncio import Redis


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def error(self) -> Any:
        return msgspec.json.decode(self.body)["error"]

    @property
    def finished(self) -> bool:
        return self.status == 200 and b"data: [DONE]" in self.body


async def ask(
    shop: Shop, key: str, max_tokens: int, *, stream: bool = True, path: str = "chat/completions", **headers: str
) -> Reply:
    """Over a connection of its own, so that any gateway may take it."""
    body = {"model": shop.model, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": max_tokens}
    sent = {"Authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(headers=sent) as session,
        session.post(f"{shop.url}/v1/{path}", json={**body, "stream": stream}) as response,
    ):
        told = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, told, await response.read(), time.monotonic() - began)


@asynccontextmanager
async def busy(shop: Shop) -> AsyncIterator[Callable[[], Any]]:
    """One long stream runs until what is yielded is called, or the block ends."""
    working = asyncio.create_task(ask(shop, shop.key, 3000))

    async def free() -> None:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    try:
        await until(lambda: live(shop), lambda count: count == 1)
        yield free
    finally:
        await free()


async def live(shop: Shop) -> int:
    """Requests that hold a slot on the shop's nodes."""
    async with Redis.from_url(shop.stack.redis_url) as redis:
        now = time.time() * 1000
        keys = [f"{{{shop.stack.redis_namespace}}}:node:{node}" for node in shop.nodes]
        return sum([int(await redis.zcount(key, f"({now:.0f}", "+inf")) for key in keys])


async def waiting(shop: Shop) -> int:
    """Requests that wait for the shop's model."""
    async with Redis.from_url(shop.stack.redis_url) as redis:
        return int(await redis.zcard(f"{{{shop.stack.redis_namespace}}}:queue:{shop.model}"))
