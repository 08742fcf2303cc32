"""A whole stack as tests use it: shared by the tests of a module, hurt, and asked."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

import simulator
from stack.bootstrap import AdminRefused
from stack.state import Running


async def complete(stack: Any, model: str = "demo-8b") -> int:
    body = {"model": model, "max_tokens": 3, "messages": [{"role": "user", "content": "Hello"}]}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {stack.api_key}"}) as session,
        session.post(f"{stack.gateway_url}/v1/chat/completions", json=body) as response,
    ):
        return response.status


@pytest.mark.parametrize("loop", [1, 2])
async def test_each_test_of_a_module_may_use_it_in_its_own_loop(stack: Any, loop: int) -> None:
    assert stack.models == ("demo-8b",)
    assert await complete(stack) == 200
    assert len((await stack.admin("GET", "/admin/nodes"))["nodes"]) == len(stack.engine_urls) == 2


def test_a_test_without_a_loop_may_use_it_too(stack: Any) -> None:
    assert asyncio.run(complete(stack)) == 200


async def test_a_refusal_carries_status_and_body(stack: Any) -> None:
    with pytest.raises(AdminRefused) as refused:
        await stack.admin("POST", "/admin/tenants", {"name": "x"})
    assert refused.value.status == 400
    assert "email" in refused.value.body


@pytest.mark.parametrize("name", ["gateway", "scheduler", "billing", "provisioner", "simulator", "valkey"])
async def test_a_killed_part_comes_back(stack: Any, name: str) -> None:
    (before, *_) = stack.pids(name)
    await stack.kill(name)
    await stack.ready(name)
    assert before not in stack.pids(name)
    told = msgspec.json.decode((stack.dir / "stack.json").read_bytes(), type=Running)
    assert told.processes[name] == stack.pids(name)


async def test_gateways_are_added_behind_the_same_port(stack: Any) -> None:
    index = await stack.add_gateway()
    assert len(set(stack.pids("gateway"))) == 2
    assert stack.metrics_url("gateway", 0) != stack.metrics_url("gateway", index)
    await stack.stop("gateway", 0)
    assert await complete(stack) == 200
    await stack.restart("gateway", 0)
    assert len(stack.pids("gateway")) == 2


async def test_engines_that_run_already_are_discovered_and_priced(make_stack: Any) -> None:
    async with simulator.serve(simulator.Config(models=("theirs/tiny",), token_ms=0)) as engine:
        stack = await make_stack(engines=(f"{engine.url}/",))
        assert stack.models == ("theirs/tiny",)
        assert stack.pids("simulator") == []
        assert await complete(stack, "theirs/tiny") == 200
        prices = await stack.admin("GET", "/admin/prices")
        assert "theirs/tiny" in str(prices)
