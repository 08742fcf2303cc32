"""Postgres: sums of months by price. Functions take the connection first."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from billing import archive_store
from billing.changes import MonthKey, Sums, columns
from billing.invoicing import Part, following
from billing.partition import partitions_of
from common.db import Connection
from common.ids import first_id


class Month(msgspec.Struct, frozen=True):
    month: datetime
    parts: list[Part]
    ledger: int
    """What the hourly sums say that the month costs, pico-dollars, in the same snapshot."""


async def add_to_months(connection: Connection, differences: Mapping[MonthKey, Sums]) -> None:
    """In the order given, which must be that of the keys, so that no two transactions wait for each other."""
    keys, sums = list(differences), list(differences.values())
    await connection.execute(
        """
        insert into billing.usage_monthly as sums (
            tenant_id, month, model, region, price_id,
            requests, input_tokens, cached_tokens, output_tokens, cost_picousd
        )
        select * from unnest(
            $1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[],
            $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::numeric[]
        )
        on conflict (tenant_id, month, model, region, price_id) do update set
            requests = sums.requests + excluded.requests,
            input_tokens = sums.input_tokens + excluded.input_tokens,
            cached_tokens = sums.cached_tokens + excluded.cached_tokens,
            output_tokens = sums.output_tokens + excluded.output_tokens,
            cost_picousd = sums.cost_picousd + excluded.cost_picousd
        """,
        *([key[part] for key in keys] for part in range(5)),
        *columns(sums),
    )


async def months(connection: Connection, tenant_id: UUID, before: datetime, limit: int) -> list[datetime]:
    """Months with usage that begin before `before`, the newest first."""
    rows = await connection.fetch(
        """
        select month from billing.usage_monthly where tenant_id = $1 and month < $2
        group by 1 having sum(requests) > 0 order by 1 desc limit $3
        """,
        tenant_id,
        before,
        limit,
    )
    return [row["month"] for row in rows]


async def month(connection: Connection, tenant_id: UUID, month: datetime) -> Month:
    # one statement is one snapshot
    rows = await connection.fetch(
        """
        with ledger as (
            select coalesce(sum(cost_picousd), 0) as cost from billing.usage_hourly
            where tenant_id = $1 and hour >= $2 and hour < $3
        )
        select sums.*, ledger.cost as ledger
        from ledger left join billing.usage_monthly as sums on tenant_id = $1 and month = $2
        """,
        tenant_id,
        month,
        following(month),
    )
    parts = [
        Part(
            model=row["model"],
            region=row["region"],
            price_id=row["price_id"],
            sums=Sums(
                row["requests"],
                row["input_tokens"],
                row["cached_tokens"],
                row["output_tokens"],
                int(row["cost_picousd"]),
            ),
        )
        for row in rows
        if row["month"] is not None
    ]
    return Month(month, parts, int(rows[0]["ledger"]))


async def remake_month(connection: Connection, tenant_id: UUID, month: datetime) -> None:
    """Sum the month from the ledger, where that still has it. Whoever is charging meanwhile adds its part after."""
    (partition,) = partitions_of([first_id(month)])
    if partition.name in await archive_store.names(connection):
        return
    await connection.execute("lock table billing.usage_monthly in share row exclusive mode")
    await connection.execute("delete from billing.usage_monthly where tenant_id = $1 and month = $2", tenant_id, month)
    await connection.execute(
        """
        insert into billing.usage_monthly
        select tenant_id, $2, model, region, price_id,
            count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(cost_picousd)
        from billing.usage where tenant_id = $1 and started_at >= $2 and started_at < $3 and id >= $4 and id < $5
        group by tenant_id, model, region, price_id
        """,
        tenant_id,
        month,
        following(month),
        first_id(month - timedelta(days=1)),
        first_id(following(month) + timedelta(days=1)),
    )
