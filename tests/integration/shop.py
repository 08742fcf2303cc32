"""One tenant with a key, one priced model on a simulated engine, and what the ledger says of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import msgspec

import simulator
from stack.stack import Stack

INPUT, CACHED, OUTPUT = 100_000, 10_000, 400_000
"""Pico-dollars a token: $0.10, $0.01 and $0.40 a million."""
DEADLINE = 20.0


class Shop:
    """`engines` serve `model` and nothing else; nobody else uses them."""

    def __init__(self, stack: Stack, model: str, engines: list[simulator.Simulator]) -> None:
        self.stack = stack
        self.url: str = stack.gateway_url
        self.model = model
        self.engines = engines
        self.nodes: list[str] = []
        self.tenant_id = ""
        self._node_key = ""
        self._max_concurrency = 0
        self.key = ""
        self.address = f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1"
        """Its calls come from here, so that wrong credentials of one shop slow no other down."""

    @property
    def engine(self) -> simulator.Simulator:
        return self.engines[0]

    @classmethod
    @asynccontextmanager
    async def open(
        cls, stack: Stack, config: simulator.Config, engines: int = 1, max_concurrency: int = 0
    ) -> AsyncIterator["Shop"]:
        """Simulated engines of the shop's own, so that their faults are nobody else's; 0 is no limit for each."""
        model = f"org/model-{uuid.uuid4().hex[:8]}"
        config = msgspec.structs.replace(config, models=(model,))
        async with simulator.serve(config) as first:
            others = [simulator.serve(config) for _ in range(engines - 1)]
            shop = cls(stack, model, [first, *[await other.__aenter__() for other in others]])
            try:
                shop._node_key, shop._max_concurrency = config.api_key, max_concurrency
                await shop._furnish()
                yield shop
            finally:
                for node in shop.nodes:
                    await shop.admin("DELETE", f"/admin/nodes/{node}")
                for other in others:
                    await other.__aexit__(None, None, None)

    @classmethod
    @asynccontextmanager
    async def of_engine(cls, stack: Stack, *urls: str) -> AsyncIterator["Shop"]:
        """Real engines, which all serve the same model."""
        async with aiohttp.ClientSession() as session, session.get(f"{urls[0]}/v1/models") as response:
            model = (await response.json())["data"][0]["id"]
        shop = cls(stack, model, [])
        await shop._furnish(*urls)
        yield shop

    async def _furnish(self, *urls: str) -> None:
        tenant = await self.admin("POST", "/admin/tenants", {"name": "t", "email": "t@example.com"})
        self.tenant_id = tenant["id"]
        created = await self.admin("POST", "/admin/api-keys", {"tenant_id": self.tenant_id, "name": "k"})
        self.key = created["key"]
        price = {
            "model": self.model,
            "input_usd_per_million": "0.10",
            "cached_input_usd_per_million": "0.01",
            "output_usd_per_million": "0.40",
        }
        await self.admin("PUT", "/admin/prices", price)
        for url in [*[engine.url for engine in self.engines], *urls]:
            asked = {"endpoint": url, "api_key": self._node_key, "max_concurrency": self._max_concurrency}
            node = await self.admin("POST", "/admin/nodes", asked)
            self.nodes.append(node["id"])
        await until(self._served, bool)

    async def _served(self) -> bool:
        status, answer = await self.call("GET", "/v1/models")
        ready = {n["id"] for n in (await self.admin("GET", "/admin/nodes"))["nodes"] if n["state"] == "ready"}
        return status == 200 and self.model in [m["id"] for m in answer["data"]] and ready >= set(self.nodes)

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        status, answer = await self.call(method, path, body, self.stack.admin_token)
        assert status < 300, (method, path, status, answer)
        return answer

    async def call(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or self.key}", "X-Forwarded-For": self.address}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, f"{self.url}{path}", json=body) as response,
        ):
            text = await response.text()
            return response.status, msgspec.json.decode(text) if text else None

    async def rows(self, count: int) -> list[asyncpg.Record]:
        """This tenant's ledger, once it has `count` rows or more."""
        connection = await asyncpg.connect(self.stack.postgres_dsn)
        try:

            async def read() -> list[asyncpg.Record]:
                return list(
                    await connection.fetch(
                        "select * from billing.usage where tenant_id = $1 order by id", uuid.UUID(self.tenant_id)
                    )
                )

            return await until(read, lambda rows: len(rows) >= count)
        finally:
            await connection.close()


def cost(row: asyncpg.Record) -> int:
    """Pico-dollars, by the prices above."""
    fresh = row["input_tokens"] - row["cached_tokens"]
    return int(fresh * INPUT + row["cached_tokens"] * CACHED + row["output_tokens"] * OUTPUT)


async def until(read: Callable[[], Any], good: Callable[[Any], bool], deadline: float = DEADLINE) -> Any:
    """What `read` gives once it is `good`; fails with what it gave last."""
    last = None
    try:
        async with asyncio.timeout(deadline):
            while not good(last := await read()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not reached within {deadline} s; last: {last!r}") from None
    return last
