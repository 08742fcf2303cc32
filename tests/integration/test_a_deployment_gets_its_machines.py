"""A deployment on this machine: its nodes come, serve, are replaced when they are lost, and go without a trace."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from integration.office import Answer, Office
from integration.shop import until

from common import bus
from common.events import ScaleRequested
from common.ids import new_id
from stack.fixtures import MakeStack
from stack.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    return await make_stack_of_module(simulators=1, simulator_settings={"token_ms": 5, "prefill_ms": 5})


class Owner:
    """Of one deployment on the launcher `local`, of a model that nobody else has."""

    def __init__(self, office: Office, key: str, spec: dict[str, Any]) -> None:
        self.office, self.key, self.spec = office, key, spec
        self.model: str = spec["model"]
        self.id = ""

    async def create(self) -> Any:
        created = await self.office.admin("POST", "/admin/deployments", self.spec)
        self.id = created["id"]
        return created

    async def shown(self) -> Any:
        return await self.office.admin("GET", f"/admin/deployments/{self.id}")

    async def ready(self, count: int, *, deadline: float = 30) -> list[dict[str, Any]]:
        """Once it has so many ready launches and no other: those."""

        async def launches() -> list[dict[str, Any]]:
            return list((await self.shown())["launches"])

        def settled(found: list[dict[str, Any]]) -> bool:
            return len(found) == count and all(one["state"] == "ready" for one in found)

        return list(await until(launches, settled, deadline))

    async def asks(self, max_tokens: int = 5) -> Answer:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens}
        return await self.office.call("POST", "/v1/chat/completions", body, token=self.key)

    async def requests(self, replicas: int, epoch: int) -> None:
        """As the scheduler would."""
        event = ScaleRequested(
            id=new_id(), time=datetime.now(UTC), model=self.model, replicas=replicas, epoch=epoch, reason="test"
        )
        async with bus.connect(self.office.stack.nats_url, "test") as connected:
            await connected.publish("scale.requested.v1", bus.encode(event), str(event.id))

    def engines(self) -> list[int]:
        """Processes of this machine that serve the model."""
        return [int(home.name) for home in Path("/proc").iterdir() if home.name.isdecimal() and self._serves(home)]

    def _serves(self, process: Path) -> bool:
        try:
            environment, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            return False
        named = f"SIM_MODELS={self.model}".encode() in environment
        return named and b"-m\0simulator" in command and b"keeper.py" not in command


@pytest.fixture
async def owner(stack: Stack) -> AsyncIterator[Owner]:
    office = await Office.open(stack)
    model = f"org/model-{uuid.uuid4().hex[:8]}"
    key = await office.admin("POST", "/admin/api-keys", {"tenant_id": office.tenant_id, "name": "k"})
    price = {"model": model, "input_usd_per_million": "0.10", "output_usd_per_million": "0.40"}
    await office.admin("PUT", "/admin/prices", price)
    spec = {"name": f"d-{uuid.uuid4().hex[:8]}", "model": model, "launcher": "local", "max_replicas": 3}
    owner = Owner(office, key["key"], spec)
    yield owner
    if owner.id:
        await office.call("DELETE", f"/admin/deployments/{owner.id}")

        async def gone() -> int:
            return (await office.call("GET", f"/admin/deployments/{owner.id}")).status

        await until(gone, lambda status: status == 404, 30)
        assert owner.engines() == []
        nodes = (await office.admin("GET", "/admin/nodes"))["nodes"]
        assert [node for node in nodes if model in [m["id"] for m in node["models"]]] == []


async def test_nodes_come_serve_and_go_as_is_asked(owner: Owner) -> None:
    created = await owner.create()
    assert (created["status"], created["replicas"], created["launches"]) == ("active", 0, [])
    assert created["plan"]["argv"][:3] == ["vllm", "serve", owner.model]
    assert created["plan"]["candidates"][0]["cloud"] == "local"

    await owner.requests(2, epoch=1)
    first, second = await owner.ready(2)
    assert first["cluster"] != second["cluster"]
    assert (await owner.asks()).status == 200

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {owner.office.stack.admin_token}"}) as http:
        url = f"{owner.office.stack.gateway_url}/admin/launches/{first['id']}/logs"
        async with http.get(url) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert (await response.content.readline()) == b"event: log\n"
            assert owner.model.encode() in await response.content.readline()

    await owner.requests(0, epoch=2)
    await owner.ready(0)
    assert owner.engines() == []
    history = (await owner.office.admin("GET", f"/admin/launches?deployment_id={owner.id}"))["launches"]
    assert [one["state"] for one in history] == ["gone", "gone"]
    assert {one["reason"] for one in history} == {"fewer replicas are wanted"}


async def test_a_lost_engine_is_replaced(owner: Owner) -> None:
    owner.spec["min_replicas"] = 1
    await owner.create()
    (first,) = await owner.ready(1)
    (pid,) = owner.engines()
    os.kill(pid, signal.SIGKILL)

    async def replaced() -> list[str]:
        return [one["cluster"] for one in (await owner.shown())["launches"] if one["state"] == "ready"]

    await until(replaced, lambda found: len(found) == 1 and found != [first["cluster"]], 30)
    assert (await owner.asks()).status == 200


async def test_a_killed_provisioner_finds_its_machines_again(owner: Owner, stack: Stack) -> None:
    owner.spec["min_replicas"] = 2
    await owner.create()
    for moment in (0.1, 0.4, 1.2):  # seconds: in the middle of whatever it is doing
        await asyncio.sleep(moment)
        await stack.kill("provisioner")
        await stack.ready("provisioner")
    launches = await owner.ready(2, deadline=60)
    engines = sorted(owner.engines())
    assert len(engines) == 2

    await stack.kill("provisioner")
    await stack.ready("provisioner")
    await owner.office.admin("GET", "/admin/fleet")
    assert [one["cluster"] for one in await owner.ready(2)] == [one["cluster"] for one in launches]
    assert sorted(owner.engines()) == engines


async def test_a_new_generation_is_ready_before_the_old_one_goes(owner: Owner) -> None:
    owner.spec["min_replicas"] = 1
    await owner.create()
    (old,) = await owner.ready(1)
    path = f"/admin/deployments/{owner.id}"
    changed = await owner.office.admin("PATCH", path, {"vllm_args": ["--max-model-len=4096"]})
    assert changed["generation"] == 2
    assert "--max-model-len=4096" in changed["plan"]["argv"]

    async def states() -> dict[str, str]:
        return {one["cluster"]: one["state"] for one in (await owner.shown())["launches"]}

    seen: list[dict[str, str]] = []
    while not seen or old["cluster"] in seen[-1] or list(seen[-1].values()) != ["ready"]:
        seen.append(await states())
        assert (await owner.asks()).status == 200
        assert len(seen) < 500
    first_draining = next(found for found in seen if found.get(old["cluster"]) != "ready")
    assert [s for cluster, s in first_draining.items() if cluster != old["cluster"]] == ["ready"]
    assert (await owner.shown())["good_generation"] == 2


async def test_what_cannot_be_is_refused_by_name(owner: Owner) -> None:
    office = owner.office
    for spec, param in [
        ({**owner.spec, "vllm_args": ["--trust-remote-code"]}, "vllm_args[0]"),
        ({**owner.spec, "name": "a\nb"}, "name"),
        ({**owner.spec, "launcher": "sky", "accelerators": [{"L4": 1}]}, "launcher"),
        ({**owner.spec, "surprise": 1}, "surprise"),
    ]:
        for path in ("/admin/deployments", "/admin/deployments/plan"):
            answer = await office.call("POST", path, spec)
            assert (answer.status, answer.body["error"]["param"]) == (400, param)
    planned = await office.admin("POST", "/admin/deployments/plan", owner.spec)
    assert planned["candidates"][0]["hourly_usd"] == "0.000000"
    await owner.create()
    path = f"/admin/deployments/{owner.id}"
    assert (await office.call("POST", "/admin/deployments", owner.spec)).code == "conflict"
    assert (await office.call("POST", f"{path}/scale", {"replicas": 4})).body["error"]["param"] == "replicas"
    assert (await office.call("PATCH", path, {"model": "x"})).body["error"]["param"] == "model"
    assert (await office.call("PATCH", path, {"max_replicas": 0})).body["error"]["param"] == "max_replicas"
    assert (await office.call("GET", f"/admin/deployments/{uuid.uuid4()}")).status == 404
    assert msgspec.json.encode(await owner.shown()).find(b"sk-engine") == -1


async def test_a_first_request_waits_for_a_machine_load_brings_more_and_idleness_takes_them_away(owner: Owner) -> None:
    owner.spec |= {"min_replicas": 0, "idle_timeout_s": 5, "max_replicas": 2}
    await owner.create()

    async def known() -> bool:
        listed = (await owner.office.call("GET", "/v1/models", token=owner.key)).body["data"]
        return owner.model in [model["id"] for model in listed]

    await until(known, bool)
    assert owner.engines() == []
    body = {"model": owner.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": True}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {owner.key}"}) as http,
        http.post(f"{owner.office.stack.gateway_url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200
        assert b"data: [DONE]" in await response.read()
    await owner.ready(1)

    loading = asyncio.Event()

    async def client() -> None:
        while not loading.is_set():
            assert (await owner.asks(max_tokens=200)).status in (200, 429)

    clients = [asyncio.create_task(client()) for _ in range(60)]
    await owner.ready(2, deadline=60)
    loading.set()
    await asyncio.gather(*clients)
    await owner.ready(0, deadline=60)
    assert owner.engines() == []
