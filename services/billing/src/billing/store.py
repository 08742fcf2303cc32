"""Postgres: prices, and the ledger as it is read. Functions take the connection first."""

from collections.abc import Collection
from datetime import datetime
from typing import get_args
from uuid import UUID

import asyncpg

from billing.changes import Entry, Sums
from billing.partition import Partition
from billing.pricing import Price
from billing.views import By, Group
from common.db import Connection
from common.errors import Conflict
from common.events import UsageRecorded

EVENT_FIELDS = UsageRecorded.__struct_fields__


async def share_prices(connection: Connection) -> None:
    """Until the transaction ends no price is added: what it charges is what a later replay charges."""
    await connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('billing.prices', 0))")


async def own_prices(connection: Connection) -> None:
    """Wait for transactions that charge, and hold up new ones until this one ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('billing.prices', 0))")


async def one_snapshot(connection: Connection) -> None:
    """As its first statement: all that the transaction reads is of one moment, and it writes nothing."""
    await connection.execute("set transaction isolation level repeatable read, read only")


async def now(connection: Connection) -> datetime:
    """The database's clock, by which prices take effect."""
    at = await connection.fetchval("select clock_timestamp()")
    assert isinstance(at, datetime)
    return at


async def prices(connection: Connection, models: Collection[str] | None) -> list[Price]:
    """All versions of these models, oldest first; None is every model."""
    rows = await connection.fetch(
        """
        select id, model, region, plan, input, cached_input, output, effective_from, created_at, created_by
        from billing.prices where $1::text[] is null or model = any($1) order by model, region, plan, effective_from
        """,
        models if models is None else list(models),
    )
    return [Price(**row) for row in rows]


async def charged_until(connection: Connection, model: str, region: str, now: datetime) -> datetime | None:
    """When the last request of those that a price of this region concerns began, if that is from `now` on."""
    at = await connection.fetchval(
        """
        select max(started_at) from billing.usage
        where model = $1 and ($2 = '' or region = $2) and started_at >= $3 and started_at > recorded_at
        """,
        model,
        region,
        now,
    )
    assert at is None or isinstance(at, datetime)
    return at


async def add_price(connection: Connection, price: Price) -> None:
    """Raises Conflict when a version begins at that very moment."""
    try:
        await connection.execute(
            """
            insert into billing.prices
                (id, model, region, input, cached_input, output, effective_from, created_at, created_by, plan)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            """,
            price.id,
            price.model,
            price.region,
            price.input,
            price.cached_input,
            price.output,
            price.effective_from,
            price.created_at,
            price.created_by,
            price.plan,
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict("another price takes effect at that moment", param="effective_from") from error


async def add_partition(connection: Connection, partition: Partition) -> None:
    """Does nothing where it exists. In a transaction of its own: it waits for nobody while it holds locks."""
    await connection.execute(
        "select billing.add_partition($1, $2, $3)", partition.name, partition.first, partition.next
    )


async def sums(
    connection: Connection,
    *,
    tenant_id: UUID | None,
    api_key_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
    group_by: Collection[By],
    limit: int,
) -> list[Group]:
    """At most `limit`, of the hours that begin from `since` on and before `until`; None leaves a filter out."""
    rows = await connection.fetch(
        """
        select
            case when $5 then model end as model,
            case when $6 then api_key_id end as api_key_id,
            case when $7 then environment_id end as environment_id,
            case when $8 then date_trunc('day', hour, 'UTC') end as day,
            case when $9 then hour end as hour,
            sum(requests)::bigint as requests,
            sum(input_tokens)::bigint as input_tokens,
            sum(cached_tokens)::bigint as cached_tokens,
            sum(output_tokens)::bigint as output_tokens,
            sum(cost_picousd) as cost
        from billing.usage_hourly as rollup
        where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or api_key_id = $2)
            and ($3::timestamptz is null or rollup.hour >= $3) and ($4::timestamptz is null or rollup.hour < $4)
        group by 1, 2, 3, 4, 5 having sum(requests) > 0 order by 5, 4, 1, 3, 2 limit $10
        """,
        tenant_id,
        api_key_id,
        since,
        until,
        *(name in group_by for name in get_args(By)),
        limit,
    )
    return [
        Group(
            model=row["model"],
            api_key_id=row["api_key_id"],
            environment_id=row["environment_id"],
            day=row["day"],
            hour=row["hour"],
            sums=Sums(*(int(row[name]) for name in Sums.__struct_fields__)),
        )
        for row in rows
    ]


async def records(
    connection: Connection, *, tenant_id: UUID | None, api_key_id: UUID | None, before: UUID, limit: int
) -> list[Entry]:
    """Lines with an id below `before`, newest first. One query a filter, so that each pages along its own index."""
    if api_key_id is not None:
        rows = await connection.fetch(
            """
            select * from billing.usage where api_key_id = $1 and id < $2 and ($4::uuid is null or tenant_id = $4)
            order by id desc limit $3
            """,
            api_key_id,
            before,
            limit,
            tenant_id,
        )
    elif tenant_id is not None:
        rows = await connection.fetch(
            "select * from billing.usage where tenant_id = $1 and id < $2 order by id desc limit $3",
            tenant_id,
            before,
            limit,
        )
    else:
        rows = await connection.fetch(
            "select * from billing.usage where id < $1 order by id desc limit $2", before, limit
        )
    return [entry_of(row) for row in rows]


def entry_of(row: asyncpg.Record) -> Entry:
    event = UsageRecorded(**{name: row[name] for name in EVENT_FIELDS})
    return Entry(event, row["price_id"], int(row["cost_picousd"]))
