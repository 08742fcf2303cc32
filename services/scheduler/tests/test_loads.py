"""How busy engines say they are: read from their metrics, told to the gateways; and how models are placed."""

import asyncio
from typing import Any

import msgspec
import pytest

import simulator
from common import bus
from common.routing import LOADS, Load, Loads, Policy
from scheduler.gauges import load

METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 9.1234e-01
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (METRICS, Load(5, 7, 0.912)),
        (b"vllm:num_requests_waiting 2\n", Load(0, 2, 0.0)),
        (b"vllm:num_requests_waiting 1e-+e\nvllm:kv_cache_usage_perc 7\n", Load(0, 0, 1.0)),
        (b"", None),
        (b"<html>vllm:num_requests_waiting 3</html>", None),
        (b"\xff\xfe" + METRICS, Load(5, 7, 0.912)),
    ],
)
def test_metrics(text: bytes, expected: Load | None) -> None:
    assert load(text) == expected


async def test_the_leader_tells_how_busy_engines_are(service: Any, client: bus.Bus, ask: Any) -> None:
    heard: asyncio.Queue[Loads] = asyncio.Queue()
    await client.listen(LOADS, lambda body: heard.put_nowait(msgspec.json.decode(body, type=Loads)))
    async with simulator.serve(simulator.Config(models=("m",))) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        async with asyncio.timeout(20):
            while node["id"] not in (await heard.get()).nodes:
                pass


async def test_placements_are_stored_and_published(service: Any, ask: Any, routes: Any, eventually: Any) -> None:
    given = {"model": "org/m", "strategy": "prefix_affinity", "region": "require"}
    expected = Policy(model="org/m", strategy="prefix_affinity", region="require")
    assert await ask("PUT", "/admin/placements", given) == (200, msgspec.to_builtins(expected))
    await ask("PUT", "/admin/placements", {"model": "other"})

    async def published() -> bool:
        return (await routes()).policies == (expected, Policy(model="other"))

    await eventually(published)
    assert await ask("GET", "/admin/placements") == (
        200,
        {"placements": [msgspec.to_builtins(expected), msgspec.to_builtins(Policy(model="other"))]},
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"model": "m", "strategy": "magic"}, "strategy"),
        ({"model": "m", "slow_start_s": -1}, "slow_start_s"),
        ({"model": "m", "region": "eu"}, "region"),
        ({"strategy": "random"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m", "weights": 1}, "weights"),
    ],
)
async def test_a_wrong_placement_is_refused_by_name(service: Any, ask: Any, given: Any, field: str) -> None:
    status, answer = await ask("PUT", "/admin/placements", given)
    assert (status, answer["error"]["param"]) == (400, field)
