"""Every test has servers of its own, or a part of one that nobody else sees."""

import asyncpg
import nats
import pytest
from redis.asyncio import Redis


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_database(postgres_dsn: str, turn: int) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("create table t ()")
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_stream_store(nats_url: str, turn: int) -> None:
    connection = await nats.connect(nats_url)
    assert await connection.jetstream().streams_info() == []
    await connection.jetstream().add_stream(name="USAGE", subjects=["usage.>"])
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_namespace(redis_url: str, redis_namespace: str, turn: int) -> None:
    async with Redis.from_url(redis_url) as redis:
        assert await redis.set(f"{redis_namespace}:x", "1", nx=True)


async def test_a_client_without_the_password_is_refused(redis_url: str, postgres_dsn: str) -> None:
    async with Redis.from_url("redis://" + redis_url.split("@")[1]) as redis:
        with pytest.raises(Exception, match="authenticat"):
            await redis.ping()
    host = postgres_dsn.split("@")[1]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://app:wrong@{host}")
