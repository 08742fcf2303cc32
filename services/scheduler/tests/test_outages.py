from contextlib import suppress
from typing import Any

import msgspec

from common.bus import Bus
from scheduler.settings import Settings
from simulator import Config, serve

ENGINE = Config(token_ms=0.1, prefill_ms=0.1)


async def test_without_postgres_health_is_still_followed(
    settings: Settings, wire: Any, client: Bus, ask: Any, routes: Any, eventually: Any, run_service: Any
) -> None:
    relay, dsn = wire
    async with run_service(msgspec.structs.replace(settings, postgres_dsn=dsn)):
        async with serve(ENGINE) as engine:
            _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
            await eventually(lambda: _state(routes, node["id"], "ready"))
            relay.break_all()
        await eventually(lambda: _state(routes, node["id"], "unhealthy"))
        assert (await ask("GET", "/admin/nodes"))[0] == 503
        relay.cut = False

        async def saved() -> bool:
            status, listed = await ask("GET", "/admin/nodes")
            return status == 200 and listed["nodes"][0]["state"] == "unhealthy"

        await eventually(saved)


async def test_without_redis_nodes_are_registered_and_routed_to(
    settings: Settings, valkey: Any, client: Bus, ask: Any, routes: Any, gateway: Any, eventually: Any, run_service: Any
) -> None:
    valkey.kill()
    async with run_service(settings), serve(ENGINE) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await eventually(lambda: _state(routes, node["id"], "ready"))
        assert (await ask("GET", "/admin/nodes"))[1]["nodes"][0]["live"] is None
        valkey.start()

        async def live() -> bool:
            return (await ask("GET", "/admin/nodes"))[1]["nodes"][0]["live"] == 0

        await eventually(live)


async def test_a_nats_that_lost_everything_has_the_routes_again(
    settings: Settings, nats: Any, client: Bus, ask: Any, routes: Any, eventually: Any, run_service: Any
) -> None:
    async with run_service(settings), serve(ENGINE) as engine:
        _, node = await ask("POST", "/admin/nodes", {"endpoint": engine.url})
        await eventually(lambda: _state(routes, node["id"], "ready"))
        version = (await routes()).version
        nats.kill(empty=True)
        nats.start()
        await eventually(lambda: _is(lambda: client.connected))

        async def again() -> bool:
            with suppress(Exception):
                snapshot = await routes()
                return bool(snapshot.version > version and snapshot.nodes[0].state == "ready")
            return False

        await eventually(again, 40)
        assert (await ask("GET", f"/admin/nodes/{node['id']}"))[0] == 200


async def _state(routes: Any, id: str, state: str) -> bool:
    return any(node.id == id and node.state == state for node in (await routes()).nodes)


async def _is(condition: Any) -> bool:
    return bool(condition())
