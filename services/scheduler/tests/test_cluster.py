"""The functions on a Redis Cluster: there a function that touches two slots is refused by the server."""

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError, ResponseError

from scheduler.library import code
from stack import servers
from stack.ports import reserve

TTL = 60_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A cluster of one, which owns all slots."""
    port, gossip = reserve(), reserve()
    server = servers.valkey(tmp_path, port, durable=False)
    argv = [*server.command.argv, "--cluster-enabled", "yes", "--cluster-port", str(gossip.number)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    client: Any = redis.Redis.from_url(server.url, decode_responses=True)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                break
            except RedisError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        while "cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()
        port.release()
        gossip.release()


def test_a_requests_whole_life_stays_in_one_slot(cluster: Any) -> None:
    cluster.function_load(code())
    namespace = f"{{{uuid.uuid4().hex}}}"
    key = f"{namespace}:leases"
    layers = [part for number in range(4) for part in (f"layer{number}", 1000, 100_000, 10)]
    admission = [700, 4, *layers, "tenant", "key", 500, 1, 2, "tenant:m", 0, 10**9, "key:k", 0, 10**9]
    nodes = ["a", 1, 1, "b", 1, 1]
    how = "0.5 700 2048 1 1.25 0 1"

    def call(function: str, *arguments: object) -> Any:
        return cluster.fcall(function, 1, key, *arguments)

    assert call("cl_admit", "one", TTL, "{}", how, "line", *admission, *nodes)[:2] == ["ok", "a"]
    assert call("cl_take", "two", TTL, "{}", how, "line", *nodes) == ["b", 1]
    assert call("cl_admit", "three", TTL, "{}", how, "line", *admission, *nodes)[0] == "full"
    assert call("cl_load", "a", "b") == [1, 1]
    assert call("cl_pending", "a", "b") == [700, 700]
    assert call("cl_renew", TTL, "one", "[1]", "four", "[1]") == ["four"]
    assert call("cl_assert", "four", TTL, "{}", "b", "[1]", 5) == 1
    assert call("cl_unrecorded", "tenant") == ["1", ["one"]]
    assert call("cl_end", "one", 10, 20) == 1
    assert call("cl_held", "tenant") == [[0, 20]]
    assert call("cl_record", "tenant", 2, 1, "tenant:m", 20, "one") == 1
    call("cl_renew", 0, "two", "[1]")
    assert [lease[0] for lease in call("cl_reap", 10, TTL)] == ["two"]
    assert call("cl_settle", "two") == 1
    assert call("cl_return", "four") == 1
    left = set(cluster.scan_iter(match="*"))
    assert left  # what billing has told, and rates
    assert all(name.startswith(f"{namespace}:") for name in left)


def test_the_server_does_refuse_two_slots(cluster: Any) -> None:
    wrong = (
        code()
        + "\nredis.register_function('wrong', function() redis.call('SET', 'a', 1) redis.call('SET', 'b', 1) end)"
    )
    cluster.function_load(wrong, replace=True)
    with pytest.raises(ResponseError, match="slot"):
        cluster.fcall("wrong", 1, "{x}:leases")
