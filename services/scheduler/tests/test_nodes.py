from typing import Any

import msgspec
import pytest

from common.bus import Bus
from common.routing import OUTCOMES, Outcome
from scheduler.settings import Settings
from simulator import Config, Fault, serve

ENGINE = Config(token_ms=0.1, prefill_ms=0.1)


async def test_a_registered_engine_is_soon_routed_to(service: Settings, ask: Any, routes: Any, eventually: Any) -> None:
    async with serve(ENGINE) as engine:
        status, node = await ask(
            "POST", "/admin/nodes", {"endpoint": engine.url + "/", "region": "eu", "weight": 2, "max_concurrency": 8}
        )
        assert (status, node["endpoint"], node["region"]) == (201, engine.url, "eu")
        assert (node["weight"], node["max_concurrency"]) == (2.0, 8)
        assert node["models"] == [{"id": "demo-8b", "max_model_len": 8192}]
        await _published(routes, eventually, node["id"], "ready")
        (published,) = (await routes()).nodes
        assert (published.endpoint, published.weight, published.max_concurrency) == (engine.url, 2.0, 8)
        assert [model.id for model in published.models] == ["demo-8b"]


async def test_readiness_is_proven_by_one_token(service: Settings, ask: Any, routes: Any, eventually: Any) -> None:
    async with serve(ENGINE) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await _published(routes, eventually, node["id"], "ready")
        assert [record.output_tokens_produced for record in engine.requests] == [1]


async def test_an_engine_that_only_embeds_becomes_ready(
    service: Settings, ask: Any, routes: Any, eventually: Any
) -> None:
    async with serve(msgspec.structs.replace(ENGINE, embed=True)) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await _published(routes, eventually, node["id"], "ready")


async def test_an_engine_registered_while_it_starts_is_not_lost(
    service: Settings, ask: Any, routes: Any, eventually: Any
) -> None:
    async with serve(ENGINE) as engine:
        url = engine.url
    status, node = await ask("POST", "/admin/nodes", {"endpoint": url})
    assert (status, node["state"], node["models"]) == (201, "warming", [])
    async with serve(msgspec.structs.replace(ENGINE, port=int(url.rsplit(":", 1)[1]))):
        await _published(routes, eventually, node["id"], "ready")


async def test_registering_again_updates_what_is_given(service: Settings, ask: Any) -> None:
    body = {"endpoint": "http://127.0.0.1:1", "region": "eu", "weight": 2}
    _, first = await ask("POST", "/admin/nodes", body)
    _, second = await ask("POST", "/admin/nodes", {"endpoint": "HTTP://127.0.0.1:1/", "max_concurrency": 3})
    assert second["id"] == first["id"]
    assert (second["region"], second["weight"], second["max_concurrency"]) == ("eu", 2.0, 3)
    _, listed = await ask("GET", "/admin/nodes")
    assert [node["id"] for node in listed["nodes"]] == [first["id"]]


async def test_the_nodes_key_is_used_and_never_shown(service: Settings, ask: Any, routes: Any, eventually: Any) -> None:
    async with serve(msgspec.structs.replace(ENGINE, api_key="sk-node")) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url, "api_key": "wrong"})
        assert node["state"] == "warming"

        async def told_why() -> bool:
            return "401" in (await ask("GET", f"/admin/nodes/{node['id']}"))[1]["reason"]

        await eventually(told_why)
        _, again = await ask("POST", "/admin/nodes", {"endpoint": engine.url, "api_key": "sk-node"})
        assert again["id"] == node["id"]
        await _published(routes, eventually, node["id"], "ready")
        assert (await routes()).nodes[0].api_key == "sk-node"
        _, listed = await ask("GET", "/admin/nodes")
        assert "sk-node" not in str(listed) + str(again)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "endpoint"),
        ({"endpoint": "http://a/b"}, "endpoint"),
        ({"endpoint": 1}, "endpoint"),
        ({"endpoint": "http://a", "weight": 0}, "weight"),
        ({"endpoint": "http://a", "max_concurrency": -1}, "max_concurrency"),
        ({"endpoint": "http://a", "region": "e'u"}, "region"),
        ({"endpoint": "http://a", "api_key": "x\r\ny: z"}, "api_key"),
        ({"endpoint": "http://a", "state": "ready"}, "state"),
    ],
)
async def test_a_wrong_registration_names_the_field(service: Settings, ask: Any, body: object, param: str) -> None:
    status, answer = await ask("POST", "/admin/nodes", body)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_request", param)


async def test_a_drain_outlives_health_and_restarts(
    settings: Settings, client: Bus, ask: Any, routes: Any, eventually: Any, run_service: Any
) -> None:
    async with serve(ENGINE) as engine:
        async with run_service(settings):
            _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
            await _published(routes, eventually, node["id"], "ready")
            status, drained = await ask("POST", f"/admin/nodes/{node['id']}/drain")
            assert (status, drained["state"]) == (200, "draining")
            await _published(routes, eventually, node["id"], "draining")
            seen = len(engine.requests)
            _, again = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
            assert (again["id"], again["state"]) == (node["id"], "draining")
        version = (await routes()).version
        async with run_service(settings):
            await eventually(lambda: _newer(routes, version))
            await _published(routes, eventually, node["id"], "draining")
            assert (await ask("GET", f"/admin/nodes/{node['id']}"))[1]["state"] == "draining"
        assert len(engine.requests) == seen


async def test_a_removed_node_leaves_the_routes(service: Settings, ask: Any, routes: Any, eventually: Any) -> None:
    _, node = await ask("POST", "/admin/nodes", {"endpoint": "http://127.0.0.1:1"})
    await _published(routes, eventually, node["id"], "warming")
    assert (await ask("DELETE", f"/admin/nodes/{node['id']}"))[0] == 200

    async def gone() -> bool:
        return (await routes()).nodes == ()

    await eventually(gone)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/drain")):
        assert (await ask(method, f"/admin/nodes/{node['id']}{path}"))[0] == 404


async def test_a_lost_node_stays_in_the_routes_and_comes_back(
    service: Settings, ask: Any, routes: Any, stored: Any, eventually: Any
) -> None:
    async with serve(ENGINE) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await _published(routes, eventually, node["id"], "ready")
    await _published(routes, eventually, node["id"], "unhealthy")
    assert [model.id for model in (await routes()).nodes[0].models] == ["demo-8b"]
    async with serve(msgspec.structs.replace(ENGINE, port=int(engine.url.rsplit(":", 1)[1]))):
        await _published(routes, eventually, node["id"], "ready")

    async def told() -> bool:
        return len(await stored("FLEET")) >= 2

    await eventually(told)
    assert [event["type"] for event in await stored("FLEET")] == ["node.registered.v1", "node.lost.v1"]


async def test_a_node_that_failed_a_request_is_looked_at_at_once(
    settings: Settings, client: Bus, ask: Any, routes: Any, eventually: Any, run_service: Any
) -> None:
    slow = msgspec.structs.replace(settings, health_interval=3600.0)
    async with run_service(slow):
        async with serve(ENGINE) as engine:
            _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
            await _published(routes, eventually, node["id"], "ready")
        await client.tell(OUTCOMES, b"nonsense")
        await client.tell(OUTCOMES, msgspec.json.encode([Outcome(node["id"], 0, 0, 1)]))
        await _published(routes, eventually, node["id"], "unhealthy")


async def test_a_node_that_refuses_while_its_health_is_well_comes_back_by_one_token(
    settings: Settings, client: Bus, ask: Any, routes: Any, eventually: Any, run_service: Any
) -> None:
    """As an engine does that shuts down: `/health` says 200, requests get 500."""
    async with run_service(settings), serve(ENGINE) as engine, serve(ENGINE) as other:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        _, second = await ask("POST", "/admin/nodes", {"endpoint": other.url})
        for one in (node, second):
            await _published(routes, eventually, one["id"], "ready")
        engine.faults.arm(Fault("http500", times=1))
        await client.tell(OUTCOMES, msgspec.json.encode([Outcome(node["id"], 0, 0, 5)]))
        await _published(routes, eventually, node["id"], "unhealthy")
        await _published(routes, eventually, node["id"], "ready")
        # one token to be registered, one refused, one to come back
        assert [record.status for record in engine.requests] == [200, 500, 200]
        assert len(other.requests) == 1
        epoch = next(one.epoch for one in (await routes()).nodes if one.id == node["id"])
        assert epoch == 5  # opened, probed, opened, probed, closed
        await client.tell(OUTCOMES, msgspec.json.encode([Outcome(node["id"], epoch - 1, 0, 100)]))

        async def saved() -> bool:
            return bool((await ask("GET", f"/admin/nodes/{node['id']}"))[1]["state"] == "ready")

        await eventually(saved)
        assert (await routes()).nodes[0].epoch == epoch


async def test_live_requests_are_shown(service: Settings, ask: Any, gateway: Any, eventually: Any) -> None:
    _, node = await ask("POST", "/admin/nodes", {"endpoint": "http://127.0.0.1:1"})

    async def loaded() -> bool:
        return bool(await gateway.redis.function_list(library="crosslogic"))

    await eventually(loaded)
    await gateway.begin(3, node=node["id"])
    assert [one["live"] for one in (await ask("GET", "/admin/nodes"))[1]["nodes"]] == [3]


async def _published(routes: Any, eventually: Any, id: str, state: str) -> None:
    async def found() -> bool:
        return any(node.id == id and node.state == state for node in (await routes()).nodes)

    await eventually(found)


async def _newer(routes: Any, version: int) -> bool:
    return bool((await routes()).version > version)
