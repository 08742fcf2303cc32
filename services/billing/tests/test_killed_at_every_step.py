"""Billing killed with SIGKILL at each step of a batch: nothing is lost, nothing is charged twice."""

import asyncio
import inspect
import re
import signal
from typing import Any

import msgspec
import pytest

from billing import ledger
from common import consumer, dead_letters
from common.bus import Bus

STEPS = (
    "taken", "partitioned", "staged", "inserted", "summed", "handled", "acknowledged", "replaced", "resummed", "parked"
)  # fmt: skip
COST = 12 * 100_000 + 5 * 10_000 + 64 * 400_000


def test_no_step_is_left_out() -> None:
    passed = re.findall(r'failpoint\.reached\("(\w+)"\)', inspect.getsource(ledger) + inspect.getsource(consumer))
    assert sorted(passed) == sorted(STEPS)


@pytest.mark.usefixtures("impatient")
async def test_a_kill_at_every_step_loses_nothing_and_charges_nothing_twice(
    put_price: Any, record: Any, send: Any, settled: Any, books: Any, spawn: Any, client: Bus
) -> None:
    await put_price()
    sent, due = 0, []
    for step in STEPS:
        process = spawn(failpoint=step)
        events = [record() for _ in range(40)]
        lost = [msgspec.structs.replace(event, outcome="gateway_lost", output_tokens=99) for event in events[:10]]
        await send(*lost, *events[10:], *events[10:15], *due, again=f".{step}")
        await client.publish("usage.recorded.v1.x", b"garbage", f"garbage.{step}")
        sent, due = sent + len(events), events[:10]  # the true ones come while the next step is tried
        assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL, step
    await send(*due, again=".last")
    spawn()
    await settled()
    found = await books()
    assert len(found.usage) == sent
    assert found.cost == sent * COST
    assert sum(row[-1] for row in found.hourly) == sum(row[-1] for row in found.outbox) == sent * COST
    assert sum(row[-1] for row in found.monthly) == sent * COST
    letters = await dead_letters.page(client, 0, 1000)
    assert {letter.body for letter in letters} == {"garbage"}
    assert len(letters) >= len(STEPS)
