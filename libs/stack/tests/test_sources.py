"""Servers that the environment names are used; where none can be had, it is said why."""

from pathlib import Path

import nats
import pytest

from stack import sources
from stack.containers import Image, refuse_unless_present
from stack.loop import LoopThread
from stack.process import StartFailed


def test_a_named_nats_is_emptied_for_each_test(
    nats_url: str, stack_session: tuple[LoopThread, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, folder = stack_session
    monkeypatch.setenv("TEST_NATS_URL", nats_url)

    async def publish() -> int:
        connection = await nats.connect(nats_url)
        await connection.jetstream().add_stream(name="USAGE", subjects=["usage.>"])
        number = (await connection.jetstream().publish("usage.x", b"1")).seq
        await connection.close()
        return number

    for _ in range(2):
        with sources.nats_server(thread, folder) as url:
            assert url == nats_url
            assert thread.wait(publish()) == 1


def test_a_named_postgres_and_redis_are_used(
    stack_session: tuple[LoopThread, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_POSTGRES_URL", "postgresql://a/b")
    monkeypatch.setenv("TEST_REDIS_URL", "redis://a")
    with sources.postgres_server(*stack_session) as dsn, sources.valkey_server(*stack_session) as url:
        assert (dsn, url) == ("postgresql://a/b", "redis://a")


def test_an_image_that_is_not_here_is_not_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartFailed, match="docker"):
        refuse_unless_present(Image("crosslogic/no-such-image:0", 1, ""))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StartFailed, match="no docker answers"):
        refuse_unless_present(Image("crosslogic/no-such-image:0", 1, ""))
