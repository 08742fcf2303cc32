import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from common import rpc
from common.bus import Bus, encode
from common.events import NodeDraining
from common.ids import new_id
from common.probed import PROBED
from scheduler.settings import Settings
from simulator import Config, serve

ENGINE = Config(token_ms=0.1, prefill_ms=0.1)
Speak = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def speak(client: Bus) -> Speak:
    """As a node's agent, through a gateway."""

    async def call(node: str, what: str, token: str | None, body: object = None) -> tuple[int, Any]:
        reply = await rpc.forward(
            client,
            "scheduler",
            rpc.Call(
                method="POST",
                path=f"/nodes/{node}/{what}",
                body=msgspec.Raw(msgspec.json.encode({} if body is None else body)),
                actor="node",
                request_id="test",
                token_sha256=hashlib.sha256(token.encode()).hexdigest() if token else None,
            ),
        )
        return reply.status, msgspec.json.decode(reply.body)

    return call


async def register(ask: Any, url: str, **fields: object) -> dict[str, Any]:
    _, node = await ask("POST", "/admin/nodes", {"endpoint": url, **fields})
    return dict(node)


async def test_a_token_is_shown_once_and_speaks_for_its_node_only(service: Settings, ask: Any, speak: Speak) -> None:
    one = await register(ask, "http://127.0.0.1:1")
    other = await register(ask, "http://127.0.0.1:2")
    assert await speak(one["id"], "heartbeat", one["token"]) == (200, {"state": "warming"})
    assert (await ask("GET", f"/admin/nodes/{one['id']}"))[1]["last_heartbeat_at"] is not None
    for node, token in ((one, other["token"]), (one, None), (one, ""), (one, "node_x"), ({"id": "none"}, one["token"])):
        status, answer = await speak(node["id"], "heartbeat", token)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert (await speak(node["id"], "draining", token))[0] == 401
    assert (await register(ask, "http://127.0.0.1:1"))["token"] is None
    again = await register(ask, "http://127.0.0.1:1", new_token=True)
    assert (await speak(one["id"], "heartbeat", one["token"]))[0] == 401
    assert (await speak(one["id"], "heartbeat", again["token"]))[0] == 200
    assert one["token"] not in str(await ask("GET", "/admin/nodes"))


async def test_a_heartbeat_undoes_no_drain(
    service: Settings, ask: Any, speak: Speak, routes: Any, stored: Any, eventually: Any
) -> None:
    async with serve(ENGINE) as engine:
        node = await register(ask, engine.url)
        deadline = datetime(2030, 1, 1, tzinfo=UTC)
        told = {"reason": "spot notice", "deadline": deadline}
        for _ in range(2):
            assert await speak(node["id"], "draining", node["token"], told) == (200, {"state": "draining"})
        for healthy in (True, False):
            assert await speak(node["id"], "heartbeat", node["token"], {"healthy": healthy}) == (
                200,
                {"state": "draining"},
            )
        await _published(routes, eventually, node["id"], "draining")
        seen = len(engine.requests)

        async def looked() -> bool:
            return bool((await ask("GET", f"/admin/nodes/{node['id']}"))[1]["models"])

        await eventually(looked)
        assert len(engine.requests) == seen
        events = [event for event in await stored("FLEET") if event["type"] == "node.draining.v1"]
        assert [(event["node_id"], event["reason"]) for event in events] == [(node["id"], "spot notice")]
        assert msgspec.convert(events[0], NodeDraining).deadline == deadline


async def test_a_drain_on_the_stream_is_heard(
    service: Settings, client: Bus, ask: Any, routes: Any, stored: Any, eventually: Any
) -> None:
    async with serve(ENGINE) as engine:
        node = await register(ask, engine.url)
        await _published(routes, eventually, node["id"], "ready")
        await client.publish("node.draining.v1", b"{}", "nonsense")
        for id in ("nobody", node["id"]):
            event = NodeDraining(id=new_id(), time=datetime.now(UTC), node_id=id, reason="spot notice")
            await client.publish("node.draining.v1", encode(event), str(event.id))
        await _published(routes, eventually, node["id"], "draining")

        async def parked() -> bool:
            return len(await stored("DEAD")) == 1

        await eventually(parked)


async def test_an_agent_that_lost_its_engine_has_it_looked_at(
    settings: Settings, client: Bus, ask: Any, speak: Speak, routes: Any, eventually: Any, run_service: Any
) -> None:
    async with run_service(msgspec.structs.replace(settings, health_interval=3600.0)):
        async with serve(ENGINE) as engine:
            node = await register(ask, engine.url)
            await _published(routes, eventually, node["id"], "ready")
        await speak(node["id"], "heartbeat", node["token"], {"healthy": False})
        await _published(routes, eventually, node["id"], "unhealthy")


async def test_what_probes_cost_can_be_explained(service: Settings, ask: Any, routes: Any, eventually: Any) -> None:
    async with serve(ENGINE) as engine:
        node = await register(ask, engine.url)
        await _published(routes, eventually, node["id"], "ready")
        made = [record for record in engine.requests if record.status == 200]

        async def counted() -> Any:
            status, answer = await ask(
                "GET", PROBED, query={"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
            )
            assert status == 200, answer
            return answer["probes"]

        (probe,) = await eventually(counted)
        assert (probe["node_id"], probe["model"], probe["unanswered"]) == (node["id"], "demo-8b", 0)
        assert probe["requests"] == len(made) == 1
        assert probe["output_tokens"] == sum(record.output_tokens_produced for record in made)
        assert probe["input_tokens"] == sum(record.prompt_tokens for record in made)


async def _published(routes: Any, eventually: Any, id: str, state: str) -> None:
    async def found() -> bool:
        return any(node.id == id and node.state == state for node in (await routes()).nodes)

    await eventually(found)
