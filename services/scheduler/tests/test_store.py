from collections.abc import AsyncIterator

import msgspec
import pytest

from common.db import Pool, migrate, open_pool, session, transaction, try_lock
from common.routing import Model, Node
from scheduler import store
from scheduler.health import Vital


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    async with open_pool(postgres_dsn, "test", 2) as opened:
        await migrate(opened, "scheduler")
        yield opened


async def registered(pool: Pool, id: str = "n", api_key: str | None = None) -> str:
    async with transaction(pool) as connection:
        return await store.register(
            connection, id=id, endpoint="http://n", region=None, api_key=api_key, weight=None, max_concurrency=None
        )


async def test_health_seen_before_a_drain_does_not_undo_it(pool: Pool) -> None:
    await registered(pool)
    late = Vital(node=Node(id="n", endpoint="http://n", state="ready", models=(Model("demo-8b"),)))
    async with transaction(pool) as connection:
        assert await store.drain(connection, "n")
        await store.save_health(connection, late)
        (node,) = await store.nodes(connection)
    assert (node.state, node.models) == ("draining", late.node.models)


async def test_health_of_a_removed_node_does_not_bring_it_back(pool: Pool) -> None:
    await registered(pool)
    async with transaction(pool) as connection:
        assert await store.remove(connection, "n")
        await store.save_health(connection, Vital(node=Node(id="n", endpoint="http://n", state="ready")))
        assert await store.nodes(connection) == []
        assert not await store.remove(connection, "n")


@pytest.mark.parametrize(("given", "kept"), [(None, "sk-old"), ("sk-new", "sk-new"), ("", None)])
async def test_a_key_is_kept_replaced_or_removed(pool: Pool, given: str | None, kept: str | None) -> None:
    await registered(pool, api_key="sk-old")
    assert await registered(pool, id="other", api_key=given) == "n"
    async with transaction(pool) as connection:
        (node,) = await store.nodes(connection)
        (view,) = await store.views(connection)
    assert node.api_key == kept
    assert "sk-" not in msgspec.json.encode(view).decode()


async def test_one_session_leads_until_it_ends(postgres_dsn: str, pool: Pool) -> None:
    async with session(postgres_dsn, "test") as first:
        assert await try_lock(first, "leader")
        async with session(postgres_dsn, "test") as second:
            assert not await try_lock(second, "leader")
            await first.close()
            assert await try_lock(second, "leader")
