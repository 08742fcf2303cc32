"""How long dashboards wait for a ledger of ten million lines. `python billing_queries.py [lines]`

One tenant has a third of them. Prints each query's milliseconds, the median and the worst of twenty after a first one.
"""

import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from billing import account_store, invoices, store
from billing.partition import partitions_of
from common import db
from common.db import Pool, transaction
from common.ids import first_id, new_id
from stack import sources
from stack.assembly import open_folder
from stack.loop import LoopThread

DAYS = 60
TENANTS, KEYS, MODELS = 50, 10, 5
BIG = UUID(int=1)


async def fill(pool: Pool, lines: int, now: datetime) -> None:
    """By SQL: lines spread evenly over the days, their sums made from them."""
    price = new_id()
    models = [f"model-{number}" for number in range(MODELS)]
    await pool.executemany(
        "insert into billing.prices values ($1, $2, '', 100000, 10000, 400000, $3, $3, 'bench')",
        [(price if model == models[0] else new_id(), model, now - timedelta(days=DAYS + 1)) for model in models],
    )
    since = now - timedelta(days=DAYS)
    for day in range(DAYS + 1):
        for partition in partitions_of([first_id(since + timedelta(days=day))]):
            async with transaction(pool) as connection:
                await store.add_partition(connection, partition)
    step = DAYS * 86_400 / lines
    for start in range(0, lines, 500_000):
        await pool.execute(
            """
            insert into billing.usage
            select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7'
                    || lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid,
                at, tenant, environment, key, model, '', 'node-1', 'chat.completions', true, 'completed', 'engine',
                1000, 100, 200, at, at, at, 1, price, 171000000, at
            from (
                select n, $2::timestamptz + make_interval(secs => n * $3::float8) as at,
                    lpad(to_hex(tenant), 32, '0')::uuid as tenant,
                    lpad('e' || to_hex(tenant), 32, '0')::uuid as environment,
                    lpad('f' || to_hex(tenant * $5 + n % $5), 32, '0')::uuid as key, 'model-' || n % $6 as model,
                    $7::uuid as price
                from (
                    select n, case when n % 3 = 0 then 1 else 2 + (n / 3) % ($4 - 1) end as tenant
                    from generate_series($1::bigint, $1 + 499999) as n
                ) as numbered
            ) as spread
            """,
            start, since, step, TENANTS, KEYS, MODELS, price,
            timeout=600,
        )  # fmt: skip
    await pool.execute(
        """
        insert into billing.usage_hourly
        select date_trunc('hour', started_at, 'UTC'), tenant_id, environment_id, api_key_id, model, region, count(*),
            sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(cost_picousd)
        from billing.usage group by 1, 2, 3, 4, 5, 6
        """,
        timeout=600,
    )
    await pool.execute("vacuum analyze billing.usage, billing.usage_hourly", timeout=600)


def queries(pool: Pool, now: datetime, key: UUID) -> dict[str, Callable[[], Awaitable[Any]]]:
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    def sums(*by: Any, tenant: UUID | None = BIG, days: int = 30, key: UUID | None = None) -> Any:
        async def ask() -> Any:
            async with transaction(pool) as connection:
                return await store.sums(
                    connection, tenant_id=tenant, api_key_id=key, since=now - timedelta(days=days), until=None,
                    group_by=by, limit=10_001,
                )  # fmt: skip

        return ask

    def page(tenant: UUID | None, key: UUID | None) -> Any:
        async def ask() -> Any:
            async with transaction(pool) as connection:
                return await store.records(
                    connection, tenant_id=tenant, api_key_id=key, before=first_id(now - timedelta(days=20)), limit=100
                )

        return ask

    async def balance() -> Any:
        async with transaction(pool) as connection:
            return await account_store.sheet(connection, BIG, ())

    async def bill() -> Any:
        return await invoices.of_month(pool, UUID(int=2), month, now)

    return {
        "30 days by model": sums("model"),
        "30 days by day": sums("day"),
        "30 days by key": sums("key"),
        "30 days by model, key": sums("model", "key"),
        "7 days by hour": sums("hour", days=7),
        "a key's 30 days by day, model": sums("day", "model", tenant=None, key=key),
        "everybody's day by model": sums("model", tenant=None, days=1),
        "everybody's 30 days by model": sums("model", tenant=None),
        "a page of a tenant's records": page(BIG, None),
        "a page of a key's records": page(None, key),
        "a page of all records": page(None, None),
        "balance": balance,
        "invoice of the month": bill,
    }


async def run(dsn: str, lines: int) -> None:
    now = datetime.now(UTC)
    async with db.open_pool(dsn, "bench", 2) as pool:
        await db.migrate(pool, "billing")
        began = time.perf_counter()
        await fill(pool, lines, now)
        count = await pool.fetchval("select count(*) from billing.usage", timeout=600)
        hours = await pool.fetchval("select count(*) from billing.usage_hourly")
        print(f"{count:,} lines, {hours:,} hourly sums, made in {time.perf_counter() - began:.0f} s")
        key = await pool.fetchval("select api_key_id from billing.usage_hourly where tenant_id = $1 limit 1", BIG)
        print(f"{'query':<32} {'median ms':>10} {'worst ms':>10}")
        for name, ask in queries(pool, now, key).items():
            await ask()
            took = []
            for _ in range(20):
                at = time.perf_counter()
                await ask()
                took.append((time.perf_counter() - at) * 1000)
            print(f"{name:<32} {statistics.median(took):>10.1f} {max(took):>10.1f}", flush=True)


def main(lines: int) -> None:
    thread, folder = LoopThread(), open_folder()
    try:
        with sources.postgres_server(thread, folder) as dsn:
            asyncio.run(run(dsn, lines))
    finally:
        thread.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
