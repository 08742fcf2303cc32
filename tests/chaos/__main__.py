"""`make chaos`: load on a stack whose processes are killed, paused and stopped; then the books are compared."""

import asyncio
import os
import random
import signal
import sys
import time
import uuid
from typing import Any

import asyncpg
from chaos.load import Load
from chaos.schedule import Step, steps
from chaos.verdict import Billed, Produced, Verdict, judge
from integration.shop import Shop, until
from redis.asyncio import Redis

import simulator
from stack.stack import Config, Stack

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}
RENEW_MS = 1000


async def run(seed: int, kills: int) -> Verdict:
    config = Config(gateways=2, replicas={"scheduler": 2, "billing": 2}, simulators=0)
    engines = simulator.Config(token_ms=20, prefill_ms=10)
    async with Stack(config) as stack, Shop.open(stack, engines, engines=2) as shop:
        for engine in shop.engines:
            for fault, share in (("truncate", 0.02), ("error", 0.02), ("reset", 0.01), ("http500", 0.01)):
                engine.faults.arm(simulator.Fault(fault=fault, after_tokens=3, probability=share))
        load, stopping = Load(shop.url, shop.key, shop.model, seed), asyncio.Event()
        running = asyncio.create_task(load.run(stopping))
        await hurt(stack, list(steps(seed, kills)))
        stopping.set()
        await asyncio.wait_for(running, 180)
        say(f"not answered: {dict(load.failures.most_common())}")
        return await compare(stack, shop, load)


async def hurt(stack: Stack, plan: list[Step]) -> None:
    start = time.monotonic()
    pauses: set[asyncio.Task[None]] = set()
    for step in plan:
        await asyncio.sleep(max(0.0, start + step.at - time.monotonic()))
        say(f"{step.at:8.2f} s  {step.action:5}  {step.target}-{step.index}  {step.seconds or ''}")
        if step.action == "pause":
            pauses.add(asyncio.create_task(pause(stack, step)))
        else:
            await stack.kill(step.target, step.index, SIGNALS[step.action])
    await asyncio.gather(*pauses)


async def pause(stack: Stack, step: Step) -> None:
    await stack.kill(step.target, step.index, signal.SIGSTOP)
    await asyncio.sleep(step.seconds)
    await stack.kill(step.target, step.index, signal.SIGCONT)


async def compare(stack: Stack, shop: Shop, load: Load) -> Verdict:
    """Once nothing moves any more."""
    connection = await asyncpg.connect(stack.postgres_dsn)
    redis = Redis.from_url(stack.redis_url)
    tenant = uuid.UUID(shop.tenant_id)
    wanted = {sent.request_id for sent in load.sent if sent.received}

    async def rows() -> list[asyncpg.Record]:
        return list(await connection.fetch("select * from billing.usage where tenant_id = $1", tenant))

    async def leases() -> int:
        return int(await redis.zcard(f"{{{stack.redis_namespace}}}:leases"))

    async def settled() -> bool:
        found = await rows()
        present = {str(row["id"]) for row in found}
        provisional = [row for row in found if row["outcome"] == "gateway_lost"]
        return wanted <= present and await leases() == 0 and (not provisional or await quiet(rows))

    try:
        await until(settled, bool, deadline=60)
    except AssertionError:
        say("the books did not settle within 60 s")
    found = await rows()
    sums = [
        await connection.fetchval(query, tenant)
        for query in (
            "select coalesce(sum(cost_picousd), 0) from billing.usage_hourly where tenant_id = $1",
            "select coalesce(sum(cost_picousd), 0) from billing.outbox where tenant_id = $1",
        )
    ]
    produced = [
        Produced(record.request_id, record.prompt_tokens, record.output_tokens_delivered)
        for engine in shop.engines
        for record in engine.requests
        if record.endpoint != "/tokenize"
    ]
    billed = [
        Billed(str(row["id"]), row["outcome"], row["input_tokens"], row["output_tokens"], int(row["cost_picousd"]))
        for row in found
    ]
    leaked = await leases()
    await connection.close()
    await redis.aclose()
    return judge(load.sent, produced, billed, rollup=int(sums[0]), outbox=int(sums[1]), leaked=leaked)


async def quiet(rows: Any) -> bool:
    """Whether no provisional record is replaced within a moment."""
    before = sorted((row["id"], row["outcome"]) for row in await rows())
    await asyncio.sleep(2)
    return bool(before == sorted((row["id"], row["outcome"]) for row in await rows()))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    kills = int(os.environ.get("KILLS") or 20)
    say(f"seed {seed}, {kills} kills (SEED={seed} KILLS={kills} make chaos repeats it)")
    began = time.monotonic()
    verdict = asyncio.run(run(seed, kills))
    say(f"\nafter {time.monotonic() - began:.0f} s:")
    for name in verdict.__struct_fields__:
        say(f"  {name.replace('_', ' '):20} {getattr(verdict, name):>10}")
    say("\nlost 0, twice 0" if verdict.good else f"\nFAILED, seed {seed}")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
