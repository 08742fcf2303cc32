"""The connection to Redis against a real server: order, errors, budgets, and losses in the middle."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from common.errors import SettingsError, Unavailable
from common.redis import Address, Redis, parse
from stack import servers
from stack.ports import reserve


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    with contextlib.closing(Redis(redis_url, "test")) as connection:
        yield connection


class Server:
    """A server of the test's own, which it may stop, kill and start again."""

    def __init__(self, argv: tuple[str, ...], url: str) -> None:
        self.argv, self.url = argv, url
        self.start()

    def start(self) -> None:
        self.process = Popen(self.argv, stdout=DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    port = reserve()
    found = servers.valkey(tmp_path, port, durable=False)
    running = Server(tuple(found.command.argv), found.url)
    yield running
    running.kill()
    port.release()


async def answering(redis: Redis) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(Unavailable):
            await redis.ask("PING", budget=1)
            return
        assert time.monotonic() < deadline, "it did not come back"
        await asyncio.sleep(0.02)


async def test_replies_come_to_whom_they_belong(redis: Redis) -> None:
    texts = [f"{number}" * (1 + number % 7) for number in range(3000)]
    replies = await asyncio.gather(*(redis.ask("ECHO", text, budget=10) for text in texts))
    assert [bytes(reply).decode() for reply in replies] == texts


async def test_arguments_of_each_kind_arrive(redis: Redis) -> None:
    assert await redis.ask("ECHO", b"\x00\r\n\xff", budget=5) == b"\x00\r\n\xff"
    assert await redis.ask("ECHO", "für", budget=5) == "für".encode()
    assert await redis.ask("ECHO", 17, budget=5) == b"17"
    assert await redis.ask("ECHO", 0.5, budget=5) == b"0.5"
    assert await redis.ask("GET", uuid.uuid4().hex, budget=5) is None


async def test_an_error_is_its_own_commands_only(redis: Redis) -> None:
    good, bad, after = await asyncio.gather(
        redis.ask("ECHO", "a", budget=5),
        redis.ask("NONSENSE", budget=5),
        redis.ask("ECHO", "b", budget=5),
        return_exceptions=True,
    )
    assert (good, after) == (b"a", b"b")
    assert isinstance(bad, Unavailable)
    assert "unknown command" in bad.message


async def test_a_big_reply_comes_whole(redis: Redis) -> None:
    big = "x" * 5_000_000
    first, second = await asyncio.gather(redis.ask("ECHO", big, budget=20), redis.ask("ECHO", "y", budget=20))
    assert first == big.encode()
    assert second == b"y"


async def test_who_stops_waiting_shifts_no_reply(redis: Redis) -> None:
    key = uuid.uuid4().hex
    for stay in range(4):
        tasks = [asyncio.create_task(redis.ask("RPUSH", key, number, budget=5)) for number in range(4)]
        await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number != stay:
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert done[stay] == stay * 4 + stay + 1
    assert await redis.ask("LLEN", key, budget=5) == 16  # sent all the same, and in their order
    assert await redis.ask("LRANGE", key, 0, 3, budget=5) == [b"0", b"1", b"2", b"3"]
    await redis.ask("DEL", key, budget=5)


async def test_a_connection_lost_in_the_middle_fails_all_who_wait(server: Server) -> None:
    with contextlib.closing(Redis(server.url, "test")) as redis:
        await answering(redis)
        server.pause()
        waiting = [asyncio.create_task(redis.ask("ECHO", number, budget=60)) for number in range(100)]
        await asyncio.sleep(0)
        server.kill()
        async with asyncio.timeout(10):
            done = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, Unavailable) for error in done)
        server.start()
        await answering(redis)
        assert await redis.ask("ECHO", "again", budget=5) == b"again"


async def test_a_silent_server_costs_its_budget_once(server: Server) -> None:
    with contextlib.closing(Redis(server.url, "test")) as redis:
        await answering(redis)
        server.pause()
        with pytest.raises(Unavailable, match=r"no answer within 0\.05"):
            await redis.ask("PING", budget=0.05)
        began = time.monotonic()
        for _ in range(1000):
            with pytest.raises(Unavailable, match="since a failure"):
                await redis.ask("PING", budget=0.05)
        assert time.monotonic() - began < 1
        server.go_on()
        await answering(redis)


async def test_one_that_may_wait_longer_is_not_given_up_with_one_that_may_not(server: Server) -> None:
    with contextlib.closing(Redis(server.url, "test")) as redis:
        await answering(redis)
        server.pause()
        patient = asyncio.create_task(redis.ask("ECHO", "late", budget=5))
        with pytest.raises(Unavailable):
            await redis.ask("PING", budget=0.05)
        server.go_on()
        assert await patient == b"late"


async def test_a_server_that_is_not_there_is_found_when_it_comes(server: Server) -> None:
    server.kill()
    with contextlib.closing(Redis(server.url, "test")) as redis:
        with pytest.raises(Unavailable):
            await redis.connect()
        server.start()
        await answering(redis)


async def test_a_wrong_password_is_unavailable_and_not_shown(server: Server) -> None:
    with contextlib.closing(Redis(server.url.replace("redis://", "redis://:wrong-one@"), "test")) as redis:
        with pytest.raises(Unavailable) as caught:
            await redis.connect()
        assert "wrong-one" not in caught.value.message


async def test_a_slot_that_moved_is_followed(redis_url: str) -> None:
    """A server in the cluster's place: it says MOVED to every command but those that greet it."""
    home = parse(redis_url)

    async def cluster(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                words = [(await reader.readline(), await reader.readline())[1] for _ in range(int(line[1:]))]
                greets = words[0].strip() in (b"PING", b"CLIENT", b"AUTH", b"SELECT")
                writer.write(b"+OK\r\n" if greets else f"-MOVED 3999 {home.host}:{home.port}\r\n".encode())

    async with await asyncio.start_server(cluster, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with contextlib.closing(Redis(f"redis://:{home.password}@127.0.0.1:{port}", "test")) as redis:
            with pytest.raises(Unavailable, match="MOVED"):
                await redis.ask("ECHO", "x", budget=5)
            await answering(redis)
            assert await redis.ask("ECHO", "x", budget=5) == b"x"


async def test_nothing_is_asked_after_close(redis_url: str) -> None:
    redis = Redis(redis_url, "test")
    await redis.connect()
    redis.close()
    with pytest.raises(Unavailable):
        await redis.ask("PING", budget=1)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address("h")),
        ("redis://:p%40ss@h:1/3", Address("h", 1, password="p@ss", database=3)),
        ("rediss://u:p@h:1?ssl_ca_certs=/ca.pem", Address("h", 1, user="u", password="p", tls=True, ca="/ca.pem")),
        ("unix:///run/redis.sock?db=2", Address(path="/run/redis.sock", database=2)),
        ("redis://[::1]:7", Address("::1", 7)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize("url", ["http://h", "redis://h:x", "redis://h/secret", "h"])
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(url)
    assert "secret" not in str(caught.value)
