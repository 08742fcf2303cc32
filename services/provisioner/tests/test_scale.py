"""Requests to scale: the highest epoch holds, whatever the order, however often they come."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import msgspec
import pytest

from common import bus, dead_letters
from common.bus import Bus
from common.db import Pool, transaction
from common.errors import Unprocessable
from common.events import ScaleRequested
from common.ids import new_id
from provisioner import consumers, scale, store


def a_request(model: str, replicas: int, epoch: int, **fields: Any) -> ScaleRequested:
    values = {"id": new_id(), "time": datetime.now(UTC), "reason": "queue"}
    return ScaleRequested(**values | fields, model=model, replicas=replicas, epoch=epoch)


async def until(question: Any, wanted: Any) -> None:
    async with asyncio.timeout(20):
        while await question() != wanted:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("service")
async def test_what_was_asked_for_last_is_desired(client: Bus, desired: Any) -> None:
    for request in (a_request("a", 2, 1), a_request("a", 5, 3), a_request("b", 1, 0), a_request("a", 0, 2)):
        await client.publish("scale.requested.v1", bus.encode(request), str(request.id))

    async def replicas() -> dict[str, int]:
        return {model: row["replicas"] for model, row in (await desired()).items()}

    await until(replicas, {"a": 5, "b": 1})
    row = (await desired())["a"]
    assert (row["epoch"], row["reason"]) == (3, "queue")


@pytest.mark.usefixtures("service")
async def test_a_bad_request_is_parked_and_the_rest_holds(client: Bus, desired: Any) -> None:
    good = a_request("a", 1, 1)
    await client.publish("scale.requested.v1", b"{", "bad")
    await client.publish("scale.requested.v1", bus.encode(good), str(good.id))

    async def models() -> list[str]:
        return list(await desired())

    async def parked() -> list[tuple[str, str]]:
        return [(letter.body, letter.consumer) for letter in await dead_letters.page(client, 0, 10)]

    await until(models, ["a"])
    await until(parked, [("{", "provisioner")])


async def test_any_order_gives_the_same(pool: Pool) -> None:
    requests = [a_request("a", 1, 1), a_request("a", 2, 2), a_request("a", 3, 2), a_request("b", 4, 0)]
    for order in permutations(requests):
        await pool.execute("truncate provisioner.desired, provisioner.scale_requests")
        assert [await consumers.record(pool, order[:2]), await consumers.record(pool, order[1:])] == [2, 2]
        async with transaction(pool) as connection:
            found = await store.desired(connection)
        assert [(row.model, row.replicas, row.epoch) for row in found] == [("a", 3, 2), ("b", 4, 0)]


async def test_concurrent_replicas_do_not_deadlock(pool: Pool) -> None:
    requests = [a_request(f"m{number % 7}", number, number) for number in range(100)]

    async def write(seed: int) -> int:
        return await consumers.record(pool, random.Random(seed).sample(requests, 100))

    assert sum(await asyncio.gather(*map(write, range(8)))) == 100


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "not a request to scale: Expected `object`"),
        (bus.encode(a_request("a", 10_001, 1)), "`int` <= 10000"),
        (bus.encode(a_request("a", 1, 2**63)), "epoch 9223372036854775808 is above"),
        (bus.encode(a_request("a\0", 1, 1)), "contains NUL"),
        (bus.encode(a_request("a", 1, 1, reason="r" * 2001)), "reason is longer than 2000 characters"),
    ],
    ids=["shape", "replicas", "epoch", "nul", "reason"],
)
def test_an_impossible_request_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Unprocessable, match=reason):
        scale.read(body)


async def test_the_process_stops_cleanly(settings: Any, desired: Any) -> None:
    values = {name.upper(): str(value) for name, value in msgspec.structs.asdict(settings).items() if value}
    process = subprocess.Popen([sys.executable, "-m", "provisioner"], env=os.environ | values)
    try:
        assert await desired() == {}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
