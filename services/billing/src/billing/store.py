"""Postgres: prices, the ledger with its rollup, and the outbox. Functions take the connection first."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg

from billing.changes import Entry, Key, Sums
from billing.partition import Partition
from billing.pricing import Price
from common.db import Connection
from common.errors import Conflict
from common.events import UsageRecorded


async def share_prices(connection: Connection) -> None:
    """Until the transaction ends no price is added: what it charges is what a later replay charges."""
    await connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('billing.prices', 0))")


async def own_prices(connection: Connection) -> datetime:
    """Wait for transactions that charge, hold up new ones until this one ends; returns the database's time."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('billing.prices', 0))")
    now = await connection.fetchval("select clock_timestamp()")
    assert isinstance(now, datetime)
    return now


async def prices(connection: Connection, models: Collection[str]) -> list[Price]:
    """All versions of these models, oldest first."""
    rows = await connection.fetch(
        """
        select id, model, region, input, cached_input, output, effective_from, created_at, created_by
        from billing.prices where model = any($1) order by model, region, effective_from
        """,
        list(models),
    )
    return [Price(**row) for row in rows]


async def all_prices(connection: Connection) -> list[Price]:
    rows = await connection.fetch(
        """
        select id, model, region, input, cached_input, output, effective_from, created_at, created_by
        from billing.prices order by model, region, effective_from
        """
    )
    return [Price(**row) for row in rows]


async def add_price(connection: Connection, price: Price) -> None:
    """Raises Conflict when a version begins at that very moment."""
    try:
        await connection.execute(
            """
            insert into billing.prices
                (id, model, region, input, cached_input, output, effective_from, created_at, created_by)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
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
    return {row["id"]: entry_of(row) for row in rows}


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


EVENT_FIELDS = UsageRecorded.__struct_fields__


def entry_of(row: asyncpg.Record) -> Entry:
    """A row of the ledger with all its columns."""
    event = UsageRecorded(**{name: row[name] for name in EVENT_FIELDS})
    return Entry(event, row["price_id"], int(row["cost_picousd"]))


def _columns(entries: Sequence[Entry]) -> list[list[object]]:
    events = [entry.event for entry in entries]
    columns: list[list[object]] = [[getattr(event, name) for event in events] for name in EVENT_FIELDS]
    return [*columns, [entry.price_id for entry in entries], [Decimal(entry.cost) for entry in entries]]
