"""How fast billing charges: from JetStream to committed ledger, rollup and outbox. `python billing_rate.py [events]`

Prints events a second and what an event costs, in microseconds of processor time, with one process and with two.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from common import bus, db
from common.events import UsageRecorded
from common.ids import new_id
from stack import sources
from stack.assembly import open_folder
from stack.loop import LoopThread

TICK = 1e6 / os.sysconf("SC_CLK_TCK")


def an_event(chance: random.Random) -> UsageRecorded:
    at = datetime.now(UTC)
    key = chance.randrange(500)
    return UsageRecorded(
        id=new_id(),
        time=at,
        tenant_id=UUID(int=key // 10),
        environment_id=UUID(int=1),
        api_key_id=UUID(int=key),
        model=f"model-{chance.randrange(5)}",
        node_id="node-1",
        endpoint="chat.completions",
        streamed=True,
        outcome="completed",
        usage_source="engine",
        input_tokens=chance.randrange(4000),
        output_tokens=chance.randrange(1000),
        started_at=at - timedelta(seconds=chance.randrange(3600)),
        first_token_at=at,
        ended_at=at,
    )


async def fill(url: str, events: int) -> None:
    """Published as fast as the stream takes them; the stream must hold all at the end."""
    chance = random.Random(1)
    async with bus.connect(url, "bench") as connected:
        before = (await connected.js.stream_info("USAGE")).state.messages
        for number in range(events):
            event = an_event(chance)
            headers = {"Nats-Msg-Id": str(event.id)}
            await connected.client.publish(event.subject, bus.encode(event), headers=headers)
            if number % 1000 == 0:
                await connected.client.flush()
        while (await connected.js.stream_info("USAGE")).state.messages < before + events:
            await asyncio.sleep(0.1)


async def price(dsn: str) -> None:
    async with db.open_pool(dsn, "bench") as pool:
        await db.migrate(pool, "billing")
        await pool.executemany(
            "insert into billing.prices values ($1, $2, '', 100000, 10000, 400000, $3, $3, 'bench')",
            [(new_id(), f"model-{number}", datetime.now(UTC) - timedelta(days=1)) for number in range(5)],
        )


async def measure(dsn: str, url: str, replicas: int, already: int, events: int) -> tuple[float, float, float]:
    """Events a second, and microseconds an event of billing and of Postgres. Start-up is not counted."""
    connection = await asyncpg.connect(dsn)
    server = int(_stat(await connection.fetchval("select pg_backend_pid()"))[1])
    environ = os.environ | {"POSTGRES_DSN": dsn, "NATS_URL": url}
    processes = [subprocess.Popen([sys.executable, "-m", "billing"], env=environ) for _ in range(replicas)]
    pids = [process.pid for process in processes]

    async def charged() -> int:
        return int(await connection.fetchval("select coalesce(sum(requests), 0) from billing.usage_hourly")) - already

    while not (first := await charged()):
        await asyncio.sleep(0.005)
    began, ours, theirs = time.perf_counter(), _spent(pids), _spent(_family(server))
    while (done := await charged()) < events:
        await asyncio.sleep(0.05)
    seconds = time.perf_counter() - began
    ours, theirs = _spent(pids) - ours, _spent(_family(server)) - theirs
    for process in processes:
        process.terminate()
        process.wait()
    await connection.close()
    return (done - first) / seconds, ours / (done - first), theirs / (done - first)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()


def _family(parent: int) -> list[int]:
    children = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _child(path, parent)]
    return [parent, *children]


def _child(path: Path, parent: int) -> bool:
    try:
        return int(_stat(int(path.name))[1]) == parent
    except (OSError, IndexError):
        return False


def _spent(pids: list[int]) -> float:
    return sum(TICK * (int(_stat(pid)[11]) + int(_stat(pid)[12])) for pid in pids)


def main(events: int) -> None:
    thread, folder = LoopThread(), open_folder()
    try:
        with sources.postgres_server(thread, folder) as dsn, sources.nats_server(thread, folder) as url:
            asyncio.run(price(dsn))
            print(f"{'processes':>9} {'events/s':>9} {'billing µs/event':>17} {'Postgres µs/event':>18}")
            for round, replicas in enumerate((1, 2)):
                asyncio.run(fill(url, events))
                rate, ours, theirs = asyncio.run(measure(dsn, url, replicas, round * events, events))
                print(f"{replicas:>9} {rate:>9,.0f} {ours:>17.1f} {theirs:>18.1f}", flush=True)
    finally:
        thread.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
