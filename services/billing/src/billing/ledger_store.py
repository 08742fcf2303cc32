"""Postgres: the ledger as it is written, with its sums and the outbox. Functions take the connection first.

A batch is copied into a table of the connection's own, from where one statement each moves it to the ledger and adds it
to the sums: as arrays or as rows of sums the same records cost three times the processor time here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.changes import Entry, Key, Sums
from billing.changes import columns as sums_columns
from billing.store import EVENT_FIELDS, entry_of
from common.db import Connection

_HALF = 10**18
"""Costs travel as two integers: a Decimal takes longer to make and to send than all else of a record."""
_FIELDS = (*EVENT_FIELDS, "price_id", "cost_high", "cost_low")


async def stage(connection: Connection, entries: Sequence[Entry]) -> None:
    """Put the entries beside the ledger until the transaction ends. Ids must differ."""
    await connection.execute(
        """
        create temporary table if not exists batch (
            id uuid, time timestamptz, tenant_id uuid, environment_id uuid, api_key_id uuid,
            model text collate "C", region text collate "C", node_id text, endpoint text, streamed boolean,
            outcome text, usage_source text, input_tokens bigint, cached_tokens bigint, output_tokens bigint,
            started_at timestamptz, first_token_at timestamptz, ended_at timestamptz, attempts integer,
            price_id uuid, cost_high bigint, cost_low bigint
        ) on commit delete rows
        """
    )
    records = [
        (
            e.id, e.time, e.tenant_id, e.environment_id, e.api_key_id, e.model, e.region, e.node_id, e.endpoint,
            e.streamed, e.outcome, e.usage_source, e.input_tokens, e.cached_tokens, e.output_tokens, e.started_at,
            e.first_token_at, e.ended_at, e.attempts, entry.price_id, *divmod(entry.cost, _HALF),
        )
        for entry in entries
        for e in (entry.event,)
    ]  # fmt: skip
    await connection.copy_records_to_table("batch", records=records, columns=_FIELDS, schema_name="pg_temp")


async def insert(connection: Connection) -> set[UUID]:
    """Write what is staged and new, in order of id; returns the ids that are not new."""
    rows = await connection.fetch(
        """
        with added as (
            insert into billing.usage (
                id, time, tenant_id, environment_id, api_key_id, model, region, node_id, endpoint, streamed, outcome,
                usage_source, input_tokens, cached_tokens, output_tokens, started_at, first_token_at, ended_at,
                attempts, price_id, cost_picousd
            )
            select id, time, tenant_id, environment_id, api_key_id, model, region, node_id, endpoint, streamed,
                outcome, usage_source, input_tokens, cached_tokens, output_tokens, started_at, first_token_at,
                ended_at, attempts, price_id, cost_high * 1000000000000000000::numeric + cost_low
            from pg_temp.batch order by id
            on conflict (id) do nothing returning id
        )
        select id from pg_temp.batch where id not in (select id from added)
        """
    )
    return {row["id"] for row in rows}


async def add_staged_to_sums(connection: Connection) -> None:
    """All that is staged, in the order of `hourly`, `by_tenant` and `monthly`, as the rows would come from there."""
    # fetched, not executed: only statements that may answer are prepared once and kept
    await connection.fetch(
        """
        insert into billing.usage_hourly as sums (
            hour, tenant_id, environment_id, api_key_id, model, region,
            requests, input_tokens, cached_tokens, output_tokens, cost_picousd
        )
        select date_trunc('hour', started_at, 'UTC'), tenant_id, environment_id, api_key_id, model, region,
            count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens),
            sum(cost_high) * 1000000000000000000::numeric + sum(cost_low)
        from pg_temp.batch group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6
        on conflict (hour, tenant_id, environment_id, api_key_id, model, region) do update set
            requests = sums.requests + excluded.requests,
            input_tokens = sums.input_tokens + excluded.input_tokens,
            cached_tokens = sums.cached_tokens + excluded.cached_tokens,
            output_tokens = sums.output_tokens + excluded.output_tokens,
            cost_picousd = sums.cost_picousd + excluded.cost_picousd
        """
    )
    await connection.fetch(
        """
        insert into billing.outbox (kind, tenant_id, hour, cost_picousd, requests)
        select 'meter', tenant_id, date_trunc('hour', started_at, 'UTC'),
            sum(cost_high) * 1000000000000000000::numeric + sum(cost_low), count(*)
        from pg_temp.batch group by 2, 3 order by 2, 3
        """
    )
    await connection.fetch(
        """
        insert into billing.usage_monthly as sums (
            tenant_id, month, model, region, price_id,
            requests, input_tokens, cached_tokens, output_tokens, cost_picousd
        )
        select tenant_id, date_trunc('month', started_at, 'UTC'), model, region, price_id,
            count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens),
            sum(cost_high) * 1000000000000000000::numeric + sum(cost_low)
        from pg_temp.batch group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
        on conflict (tenant_id, month, model, region, price_id) do update set
            requests = sums.requests + excluded.requests,
            input_tokens = sums.input_tokens + excluded.input_tokens,
            cached_tokens = sums.cached_tokens + excluded.cached_tokens,
            output_tokens = sums.output_tokens + excluded.output_tokens,
            cost_picousd = sums.cost_picousd + excluded.cost_picousd
        """
    )


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
        *sums_columns(sums),
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


def _columns(entries: Sequence[Entry]) -> list[list[object]]:
    events = [entry.event for entry in entries]
    columns: list[list[object]] = [[getattr(event, name) for event in events] for name in EVENT_FIELDS]
    return [*columns, [entry.price_id for entry in entries], [Decimal(entry.cost) for entry in entries]]
