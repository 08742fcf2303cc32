"""`python -m bench.placement`: what taking a slot and giving it back costs, beside plain redis-py in the same run."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import redis.asyncio
import uvloop
from bench import cpu

from common.errors import Unavailable
from common.leases import Layer, leases_key
from common.redis import Redis
from common.routing import Model, Node, Policy, Strategy
from gateway.leases import Ask, Hold, Leases
from gateway.placing import strategy
from gateway.placing.known import Known
from gateway.placing.picking import Offer
from gateway.placing.pool import Pool
from gateway.placing.wanted import Wanted
from scheduler.library import code
from stack import servers
from stack.ports import reserve

PAIRS, AT_ONCE, INTENT, TTL = 20_000, 64, b"x" * 500, 60_000
PACE, SECONDS = 1000, 5
LAYERS = tuple(Layer(f"k{number}:{uuid.uuid4()}", 10**9, 10**9, 10**6) for number in range(4))
HOLD = Hold("t", "k", 100, 1, (("tenant:m", 0, 10**15), ("key:k", 0, 10**15)))
Pair = Callable[[], Awaitable[object]]


@contextlib.contextmanager
def valkey() -> Iterator[tuple[str, int]]:
    port = reserve()
    with tempfile.TemporaryDirectory(prefix="crosslogic-bench-") as folder:
        found = servers.valkey(Path(folder), port, durable=False)
        process = subprocess.Popen(found.command.argv, stdout=subprocess.DEVNULL)
        try:
            yield found.url, process.pid
        finally:
            process.kill()
            process.wait()
            port.release()


def pool(count: int, how: Strategy = "least_loaded") -> Pool:
    nodes = [
        Node(id=str(uuid.UUID(int=number)), endpoint=f"http://n{number}", state="ready", models=(Model("m"),))
        for number in range(count)
    ]
    return Pool(tuple(nodes), Policy(strategy=how))


def offer(of: Pool, random: Random, turn: int = 0) -> Offer:
    wanted = Wanted(tokens=500, tenant="t", prompt=msgspec.Raw(b'"%d"' % (turn % 100)))
    return strategy.offer(of, wanted, Known(), turn, random)


async def measure(name: str, server: int, pair: Pair, base: float | None = None) -> float:
    """Prints, and returns the microseconds of CPU that a pair costs here."""
    left = PAIRS

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await pair()

    began, own, theirs = time.perf_counter(), time.process_time(), cpu.seconds([server])
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    took, us = time.perf_counter() - began, (time.process_time() - own) / PAIRS * 1e6
    ratio = f"{us / base:6.2f}" if base else "  1.00"
    sys.stdout.write(
        f"{name:46} {PAIRS / took:9.0f} {us:8.1f} {ratio} {(cpu.seconds([server]) - theirs) / PAIRS * 1e6:8.1f}\n"
    )
    return us


async def paced(pair: Pair) -> list[float]:
    """Seconds of each of PACE pairs a second, which come by the clock and not by what is done."""
    found: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        await pair()
        found.append(time.perf_counter() - began)

    loop = asyncio.get_running_loop()
    first, tasks = loop.time(), []
    for number in range(PACE * SECONDS):
        await asyncio.sleep(first + number / PACE - loop.time())
        tasks.append(loop.create_task(one()))
    await asyncio.gather(*tasks)
    return sorted(found)


async def run() -> None:
    with valkey() as (url, server), contextlib.closing(Redis(url, "bench", rest=0.02)) as connection:
        while True:
            with contextlib.suppress(Unavailable):
                await connection.connect()
                break
            await asyncio.sleep(0.02)
        await connection.ask("FUNCTION", "LOAD", code(), budget=5)
        leases, random = Leases(connection, connection, "bench", budget=5), Random(1)
        few, many = pool(8), pool(1000)
        plain = redis.asyncio.Redis.from_url(url, max_connections=AT_ONCE)

        async def by_redis_py() -> None:
            id, given = str(uuid.uuid4()), offer(few, random)
            triples = [part for place in given.places for part in (place.id, place.capacity, place.weight)]
            key = leases_key("bench")
            await plain.fcall("cl_take", 1, key, id, TTL, INTENT, given.how(0.5), "", *triples)
            await plain.fcall("cl_end", 1, key, id, 50, 50)

        async def take(of: Pool) -> None:
            id = str(uuid.uuid4())
            await leases.take(id, TTL, INTENT, offer(of, random), 0.5, "")
            await leases.end(id, 50, 50)

        async def admit() -> None:
            id = str(uuid.uuid4())
            await leases.admit(id, TTL, INTENT, offer(few, random), 0.5, "", Ask(LAYERS, 100, HOLD))
            await leases.end(id, 50, 50)

        sys.stdout.write(f"{'place and return':46} {'pairs/s':>9} {'CPU us':>8} {'ratio':>6} {'Redis us':>8}\n")
        base = await measure("redis-py, a call at a time, 8 nodes", server, by_redis_py)
        await measure("take, 8 nodes", server, lambda: take(few), base)
        await measure("take, 1000 nodes", server, lambda: take(many), base)
        await measure("admit, 4 layers and 2 budgets, 8 nodes", server, admit, base)
        await plain.aclose()
        times = await paced(lambda: take(few))
        sys.stdout.write(f"\nat {PACE} pairs/s: p50 {times[len(times) // 2] * 1e3:.2f} ms, ")
        sys.stdout.write(f"p99 {times[int(len(times) * 0.99)] * 1e3:.2f} ms for both calls\n\n")
    for how in ("least_loaded", "prefix_affinity", "round_robin", "weighted", "random"):
        many = pool(1000, how)
        first = time.process_time()
        offer(many, random)
        began = time.process_time()
        for turn in range(1000):
            offer(many, random, turn)
        sys.stdout.write(
            f"decision over 1000 nodes, {how:16} {(time.process_time() - began) * 1e3:6.0f} us"
            f" (first after a change {(began - first) * 1e3:.1f} ms)\n"
        )


if __name__ == "__main__":
    uvloop.run(run())
