"""A node that hangs is left out within its window while the other one serves, and one probe brings it back."""

import asyncio
import signal
from typing import Any

import aiohttp
import asyncpg
import pytest_asyncio
from integration.shop import until

from stack.stack import Stack

WINDOW = 10.0
"""Seconds: two looks, each given up after two."""
BODY = {"model": "demo-8b", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi."}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: Any) -> Stack:
    return await make_stack_of_module(
        simulators=2, replicas={"scheduler": 2}, service_env={"GATEWAY_FIRST_BYTE_TIMEOUT": "2"}
    )


async def test_it_hangs_and_comes_back(stack: Stack) -> None:
    async def nodes() -> dict[str, str]:
        return {node["id"]: node["state"] for node in (await stack.admin("GET", "/admin/nodes"))["nodes"]}

    async def probed(id: str) -> tuple[int, int]:
        """Tokens asked for by the schedulers, and those of them that came."""
        row = await connection.fetchrow(
            "select coalesce(sum(requests), 0), coalesce(sum(requests - unanswered), 0)"
            " from scheduler.probes where node_id = $1",
            id,
        )
        return int(row[0]), int(row[1])

    async def asks(session: aiohttp.ClientSession) -> int:
        async with session.post("/v1/chat/completions", json=BODY) as response:
            await response.read()
            return response.status

    async with aiohttp.ClientSession(
        stack.gateway_url, headers={"Authorization": f"Bearer {stack.api_key}"}
    ) as session:
        connection = await asyncpg.connect(stack.postgres_dsn)
        try:
            before = await until(nodes, lambda found: set(found.values()) == {"ready"} and len(found) == 2)
            for id in before:
                await until(lambda id=id: probed(id), lambda found: found == (1, 1))  # type: ignore[misc]
            await stack.kill("simulator", 1, signal.SIGSTOP)
            try:
                served = asyncio.create_task(_serve(asks, session))
                states = await until(nodes, lambda found: "unhealthy" in found.values(), deadline=WINDOW)
                assert sorted(states.values()) == ["ready", "unhealthy"]
                (hung,) = [id for id, state in states.items() if state == "unhealthy"]
                assert await served == {200}, "nobody was refused for it"
            finally:
                await stack.kill("simulator", 1, signal.SIGCONT)
            await until(nodes, lambda found: set(found.values()) == {"ready"}, deadline=30)
            await until(lambda: probed(hung), lambda found: found[0] >= 2)
            assert await probed(hung) == (2, 2), "one probe, for both schedulers"
            other = next(id for id in before if id != hung)
            assert await probed(other) == (1, 1)
        finally:
            await connection.close()


async def _serve(asks: Any, session: aiohttp.ClientSession) -> set[int]:
    statuses = set()
    for _ in range(30):
        statuses |= set(await asyncio.gather(*[asks(session) for _ in range(2)]))
    return statuses
