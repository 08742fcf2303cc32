"""Postgres: both sides of what must agree. Functions take the connection first."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from uuid import UUID

from billing.comparison import Books, Charged, Counted, Place, Tokens
from common.db import Connection
from common.events import Counters, NodeCounted
from common.ids import first_id

DAY = timedelta(days=1)


async def books(connection: Connection, tenant_id: UUID | None) -> list[Books]:
    """Of tenants who are Stripe's customers."""
    rows = await connection.fetch(
        """
        select tenant_id, carried_picousd as carried,
            (select coalesce(sum(cost_picousd), 0) from billing.usage_hourly u
                where u.tenant_id = c.tenant_id) as ledger,
            (select coalesce(sum(cost_picousd), 0) from billing.outbox o
                where o.tenant_id = c.tenant_id and sent_at is null) as unsent,
            (select coalesce(sum(counted_microusd), 0) * 1000000 from billing.meter_batches b
                where b.tenant_id = c.tenant_id) as batched
        from billing.stripe_customers c where $1::uuid is null or tenant_id = $1 order by tenant_id
        """,
        tenant_id,
    )
    found: list[Books] = []
    for row in rows:
        ledger, unsent, carried, batched = (int(row[name]) for name in ("ledger", "unsent", "carried", "batched"))
        found.append(
            Books(
                tenant_id=row["tenant_id"],
                ledger=ledger,
                unsent=unsent,
                carried=carried,
                batched=batched,
                difference=ledger - unsent - carried - batched,
            )
        )
    return found


async def delivered(
    connection: Connection, tenant_id: UUID, since: datetime, until: datetime
) -> dict[datetime, tuple[int, int]]:
    """Micro-dollars by hour as Stripe was told it: certain, and possibly arrived."""
    rows = await connection.fetch(
        """
        select date_trunc('hour', at, 'UTC') as hour,
            coalesce(sum(counted_microusd) filter (where state in ('delivered', 'settled')), 0)::bigint as certain,
            coalesce(sum(microusd) filter (
                where state = 'uncertain' or state = 'ready' and tries > 0
            ), 0)::bigint as maybe
        from billing.meter_batches where tenant_id = $1 and at >= $2 and at < $3 group by 1
        """,
        tenant_id,
        since,
        until,
    )
    return {row["hour"]: (row["certain"], row["maybe"]) for row in rows}


async def charged(connection: Connection, since: datetime, until: datetime) -> dict[Place, Charged]:
    rows = await connection.fetch(
        """
        select date_trunc('hour', started_at, 'UTC') as hour, node_id, model,
            sum(input_tokens)::bigint as input, sum(output_tokens)::bigint as output,
            coalesce(sum(input_tokens) filter (where outcome <> 'completed'), 0)::bigint as aborted_input,
            coalesce(sum(output_tokens) filter (where outcome <> 'completed'), 0)::bigint as aborted_output
        from billing.usage
        where node_id is not null and started_at >= $1 and started_at < $2 and id >= $3 and id < $4 group by 1, 2, 3
        """,
        since,
        until,
        first_id(since - DAY),  # ids are made within a day of when requests begin
        first_id(until + DAY),
    )
    return {
        (row["hour"], row["node_id"], row["model"]): Charged(
            Tokens(row["input"], row["output"]), Tokens(row["aborted_input"], row["aborted_output"])
        )
        for row in rows
    }


async def counted(connection: Connection, since: datetime, until: datetime) -> dict[Place, Counted]:
    rows = await connection.fetch(
        "select * from billing.engine_hourly where hour >= $1 and hour < $2 order by hour, node_id, model", since, until
    )
    return {
        (row["hour"], row["node_id"], row["model"]): Counted(
            Tokens(row["input_tokens"], row["output_tokens"]), row["resets"]
        )
        for row in rows
    }


async def count(connection: Connection, event: NodeCounted) -> None:
    """Add what an engine has done since the reading before; an older reading, or the same again, adds nothing.

    The first reading of an engine is where counting begins. One that is lower than before has begun anew.
    """
    for model, tokens in sorted(event.models.items()):
        added = await connection.fetchval(
            """
            insert into billing.engine_readings (node_id, model, read_at, input_tokens, output_tokens)
            values ($1, $2, $3, $4, $5) on conflict do nothing returning 1
            """,
            event.node_id,
            model,
            event.time,
            tokens.input_tokens,
            tokens.output_tokens,
        )
        if added is None:
            await _count(connection, event, model, tokens)


async def _count(connection: Connection, event: NodeCounted, model: str, now: Counters) -> None:
    before = await connection.fetchrow(
        """
        select input_tokens, output_tokens from billing.engine_readings
        where node_id = $1 and model = $2 and read_at < $3 for update
        """,
        event.node_id,
        model,
        event.time,
    )
    if before is None:
        return
    anew = now.input_tokens < before["input_tokens"] or now.output_tokens < before["output_tokens"]
    await connection.execute(
        """
        update billing.engine_readings set read_at = $3, input_tokens = $4, output_tokens = $5
        where node_id = $1 and model = $2
        """,
        event.node_id,
        model,
        event.time,
        now.input_tokens,
        now.output_tokens,
    )
    await connection.execute(
        """
        insert into billing.engine_hourly as sums (hour, node_id, model, input_tokens, output_tokens, resets)
        values (date_trunc('hour', $1::timestamptz, 'UTC'), $2, $3, $4, $5, $6)
        on conflict (hour, node_id, model) do update set
            input_tokens = sums.input_tokens + excluded.input_tokens,
            output_tokens = sums.output_tokens + excluded.output_tokens,
            resets = sums.resets + excluded.resets
        """,
        event.time,
        event.node_id,
        model,
        now.input_tokens - (0 if anew else before["input_tokens"]),
        now.output_tokens - (0 if anew else before["output_tokens"]),
        int(anew),
    )


async def begin(connection: Connection, day: date, now: datetime, stale: datetime) -> bool:
    """Whether the day is ours to reconcile: nobody has, or whoever began before `stale` has no result."""
    row = await connection.fetchval(
        """
        insert into billing.reconciliations as known (day, began_at) values ($1, $2)
        on conflict (day) do update set began_at = $2 where known.result is null and known.began_at < $3
        returning 1
        """,
        day,
        now,
        stale,
    )
    return row is not None


async def end(connection: Connection, day: date, agrees: bool, result: bytes) -> None:
    await connection.execute(
        "update billing.reconciliations set agrees = $2, result = $3 where day = $1", day, agrees, result
    )


async def tenants(connection: Connection, tenant_id: UUID | None) -> Mapping[UUID, str]:
    """Stripe's customers."""
    rows = await connection.fetch(
        "select tenant_id, customer_id from billing.stripe_customers where $1::uuid is null or tenant_id = $1",
        tenant_id,
    )
    return {row["tenant_id"]: row["customer_id"] for row in rows}
