"""`POST /admin/reconcile`: what engines count is what the ledger charged, by hour, node and model."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from integration.shop import Shop, until
from openai import AsyncOpenAI

import simulator
from stack.fixtures import MakeStack
from stack.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    return await make_stack_of_module(
        simulators=1, service_env={"SCHEDULER_LOAD_INTERVAL": "0.1", "SCHEDULER_COUNT_INTERVAL": "0.2"}
    )


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    async with Shop.open(stack, simulator.Config(models=(), token_ms=1, prefill_ms=1)) as shop:
        yield shop


async def test_every_token_of_an_engine_is_charged_or_named(shop: Shop) -> None:
    node = shop.nodes[0]

    async def report() -> dict[str, Any]:
        since = datetime.now(UTC) - timedelta(hours=2)
        found: dict[str, Any] = await shop.admin("POST", "/admin/reconcile", {"from": since.isoformat()})
        return found

    async def work() -> list[dict[str, Any]]:
        return [row for row in (await report())["engines"] if row["node_id"] == node]

    # counting has begun: an engine's first reading is where it begins
    await until(work, lambda rows: bool(rows) and rows[0]["resets"] == 0, deadline=60)
    before = await work()
    messages: Any = [{"role": "user", "content": "Tell me a story."}]
    async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=30) as client:
        for stream in (True, False) * 3:
            answer: Any = await client.chat.completions.create(
                model=shop.model, messages=messages, max_tokens=20, stream=stream
            )
            if stream:
                [chunk async for chunk in answer]
    charged = sum(row["output_tokens"] for row in await shop.rows(6))

    async def added() -> tuple[int, int, int]:
        rows = await work()
        ours = [sum(row[side]["output"] for row in rows) for side in ("engine", "ledger")]
        known = [sum(row[side]["output"] for row in before) for side in ("engine", "ledger")]
        difference = [sum(row["difference"]["output"] for row in found) for found in (rows, before)]
        return ours[0] - known[0], ours[1] - known[1], difference[0] - difference[1]

    await until(added, lambda sums: sums == (charged, charged, 0), deadline=60)
    answer = await report()
    assert answer["agrees"]
    assert answer["meter"] is None, "Stripe is off"
    assert answer["probes_known"]


async def test_what_cannot_be_reconciled_is_refused(shop: Shop) -> None:
    for body in ({"from": "2026-01-01", "to": "2025-01-01"}, {"from": "2025-01-01"}, {"nonsense": 1}):
        status, answer = await shop.call("POST", "/admin/reconcile", body, shop.stack.admin_token)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")
