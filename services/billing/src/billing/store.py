"""Postgres: prices, the ledger with its rollup, and the outbox. Functions take the connection first."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import get_args
from uuid import UUID

import asyncpg

from billing.changes import Entry, Key, Sums
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


async def insert(connection: Connection, entries: Sequence[Entry]) -> set[UUID]:
    """Write those whose id is new, in the order given, which must be that of the ids; returns the new ids."""
    rows = await connection.fetch(
        """
        insert into billing.usage (
            id, time, tenant_id, environment_id, api_key_id, model, region, node_id, endpoint, streamed, outcome,
            usage_source, input_tokens, cached_tokens, output_tokens, started_at, first_token_at, ended_at, attempts,
            price_id, cost_picousd
        )
        select * from unnest(
            $1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::boolean[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[],
            $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::integer[], $20::uuid[], $21::numeric[]
        )
        on conflict (id) do nothing returning id
        """,
        *_columns(entries),
    )
    return {row["id"] for row in rows}


async def lock(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Entry]:
    """These lines, kept as they are until the transaction ends. Locked in order of id, so that no two wait for
    each other."""
    rows = await connection.fetch("select * from billing.usage where id = any($1) order by id for update", ids)
    return {row["id"]: _entry(row) for row in rows}


async def replace(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write over lines that are locked."""
    await connection.execute(
        """
        update billing.usage set
            time = new.time, tenant_id = new.tenant_id, environment_id = new.environment_id,
            api_key_id = new.api_key_id, model = new.model, region = new.region, node_id = new.node_id,
            endpoint = new.endpoint, streamed = new.streamed, outcome = new.outcome, usage_source = new.usage_source,
            input_tokens = new.input_tokens, cached_tokens = new.cached_tokens, output_tokens = new.output_tokens,
            started_at = new.started_at, first_token_at = new.first_token_at, ended_at = new.ended_at,
            attempts = new.attempts, price_id = new.price_id, cost_picousd = new.cost_picousd, recorded_at = now()
        from unnest(
            $1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::boolean[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[],
            $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::integer[], $20::uuid[], $21::numeric[]
        ) as new (
            id, time, tenant_id, environment_id, api_key_id, model, region, node_id, endpoint, streamed, outcome,
            usage_source, input_tokens, cached_tokens, output_tokens, started_at, first_token_at, ended_at, attempts,
            price_id, cost_picousd
        )
        where usage.id = new.id
        """,
        *_columns(entries),
    )


async def add_to_rollup(connection: Connection, differences: Mapping[Key, Sums]) -> None:
    """In the order given, which must be that of the keys, so that no two transactions wait for each other."""
    keys, sums = list(differences), list(differences.values())
    await connection.execute(
        """
        insert into billing.usage_hourly as sums (
            hour, tenant_id, environment_id, api_key_id, model, region,
            requests, input_tokens, cached_tokens, output_tokens, cost_picousd
        )
        select * from unnest(
            $1::timestamptz[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::numeric[]
        )
        on conflict (hour, tenant_id, environment_id, api_key_id, model, region) do update set
            requests = sums.requests + excluded.requests,
            input_tokens = sums.input_tokens + excluded.input_tokens,
            cached_tokens = sums.cached_tokens + excluded.cached_tokens,
            output_tokens = sums.output_tokens + excluded.output_tokens,
            cost_picousd = sums.cost_picousd + excluded.cost_picousd
        """,
        *([key[part] for key in keys] for part in range(6)),
        [s.requests for s in sums],
        [s.input_tokens for s in sums],
        [s.cached_tokens for s in sums],
        [s.output_tokens for s in sums],
        [Decimal(s.cost) for s in sums],
    )


async def add_to_outbox(connection: Connection, differences: Mapping[tuple[UUID, datetime], tuple[int, int]]) -> None:
    """(Tenant, hour) → (pico-dollars, requests) that the meter has yet to hear of."""
    await connection.execute(
        """
        insert into billing.outbox (kind, tenant_id, hour, cost_picousd, requests)
        select 'meter', * from unnest($1::uuid[], $2::timestamptz[], $3::numeric[], $4::bigint[])
        """,
        [tenant_id for tenant_id, _ in differences],
        [hour for _, hour in differences],
        [Decimal(cost) for cost, _ in differences.values()],
        [requests for _, requests in differences.values()],
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
    return [_entry(row) for row in rows]


def _entry(row: asyncpg.Record) -> Entry:
    event = UsageRecorded(**{name: row[name] for name in EVENT_FIELDS})
    return Entry(event, row["price_id"], int(row["cost_picousd"]))


def _columns(entries: Sequence[Entry]) -> list[list[object]]:
    events = [entry.event for entry in entries]
    columns: list[list[object]] = [[getattr(event, name) for event in events] for name in EVENT_FIELDS]
    return [*columns, [entry.price_id for entry in entries], [Decimal(entry.cost) for entry in entries]]
