"""Postgres: from the outbox to batches for the meter, and what became of them. Functions take the connection first."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from billing.batches import Batch, Uncertain
from common.db import Connection


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant at Stripe."""

    tenant_id: UUID
    customer_id: str
    subscription_id: str
    starts_at: datetime
    name: str
    email: str
    carried: int
    """Pico-dollars."""


class Owed(msgspec.Struct, frozen=True):
    """What was taken from the outbox."""

    hours: dict[datetime, int]
    """Pico-dollars, of either sign."""
    last: int


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    identifier: str
    tenant_id: UUID
    customer_id: str
    starts_at: datetime
    hour: datetime
    at: datetime
    micro: int
    tries: int


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """The batches of one customer and hour of Stripe's of which it is not known whether they arrived."""

    tenant_id: UUID
    customer_id: str
    starts_at: datetime
    since: datetime
    """The whole hour, as Stripe sums it."""
    hour: datetime
    """Of usage, of the first of them."""
    known: int
    """Micro-dollars that have arrived for certain."""
    sent: tuple[Uncertain, ...]


class Backlog(msgspec.Struct, frozen=True):
    seconds: float
    """Age of the oldest change that the meter has not been told."""
    uncertain: int


async def add_link(connection: Connection, link: Link) -> None:
    """Does nothing where the tenant has one."""
    await connection.execute(
        """
        insert into billing.stripe_customers
            (tenant_id, customer_id, subscription_id, starts_at, name, email, carried_picousd)
        values ($1, $2, $3, $4, $5, $6, $7) on conflict (tenant_id) do nothing
        """,
        link.tenant_id,
        link.customer_id,
        link.subscription_id,
        link.starts_at,
        link.name,
        link.email,
        Decimal(link.carried),
    )


async def links(connection: Connection, tenants: Sequence[UUID] | None = None) -> dict[UUID, Link]:
    rows = await connection.fetch(
        """
        select tenant_id, customer_id, subscription_id, starts_at, name, email, carried_picousd as carried
        from billing.stripe_customers where $1::uuid[] is null or tenant_id = any($1) order by tenant_id
        """,
        None if tenants is None else list(tenants),
    )
    return {row["tenant_id"]: Link(**{**row, "carried": int(row["carried"])}) for row in rows}


async def rename(connection: Connection, tenant_id: UUID, name: str, email: str) -> None:
    await connection.execute(
        "update billing.stripe_customers set name = $2, email = $3 where tenant_id = $1", tenant_id, name, email
    )


async def owing(connection: Connection) -> list[UUID]:
    """Tenants of whom the meter has yet to hear. Who is or was on a plan that the meter cannot express is none."""
    rows = await connection.fetch(
        """
        select distinct tenant_id from billing.outbox where kind = 'meter' and sent_at is null
            and tenant_id not in (select tenant_id from billing.unmetered)
        order by tenant_id
        """
    )
    return [row["tenant_id"] for row in rows]


async def hold(connection: Connection, tenant_id: UUID) -> Link | None:
    """The tenant's link, nobody else's until the transaction ends; None while somebody else has it."""
    row = await connection.fetchrow(
        """
        select tenant_id, customer_id, subscription_id, starts_at, name, email, carried_picousd as carried
        from billing.stripe_customers where tenant_id = $1 for update skip locked
        """,
        tenant_id,
    )
    return Link(**{**row, "carried": int(row["carried"])}) if row else None


async def take(connection: Connection, tenant_id: UUID) -> Owed:
    """Everything of the tenant that is in the outbox now, by hour; it is taken when the transaction commits."""
    rows = await connection.fetch(
        """
        with taken as (
            update billing.outbox set sent_at = now() where kind = 'meter' and tenant_id = $1 and sent_at is null
            returning id, hour, cost_picousd
        )
        select hour, sum(cost_picousd) as cost, max(id) as last from taken group by hour order by hour
        """,
        tenant_id,
    )
    return Owed({row["hour"]: int(row["cost"]) for row in rows}, max((row["last"] for row in rows), default=0))


async def carry(connection: Connection, tenant_id: UUID, carried: int) -> None:
    await connection.execute(
        "update billing.stripe_customers set carried_picousd = $2 where tenant_id = $1", tenant_id, Decimal(carried)
    )


async def add(connection: Connection, batches: Sequence[Batch], now: datetime) -> None:
    await connection.execute(
        """
        insert into billing.meter_batches (identifier, tenant_id, hour, at, microusd, counted_microusd, next_try_at)
        select identifier, tenant_id, hour, at, micro, micro, $6
        from unnest($1::text[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::bigint[])
            as new (identifier, tenant_id, hour, at, micro)
        """,
        [batch.identifier for batch in batches],
        [batch.tenant_id for batch in batches],
        [batch.hour for batch in batches],
        [batch.at for batch in batches],
        [batch.micro for batch in batches],
        now,
    )


async def claim(
    connection: Connection, now: datetime, *, until: datetime, tried_since: datetime, limit: int
) -> list[Claimed]:
    """Batches that are due, nobody else's `until` then, and none that was first tried before `tried_since`."""
    rows = await connection.fetch(
        """
        with due as (
            select id from billing.meter_batches
            where state = 'ready' and next_try_at <= $1 and (claimed_until is null or claimed_until <= $1)
                and (first_tried_at is null or first_tried_at > $3)
            order by next_try_at, id limit $4 for update skip locked
        )
        update billing.meter_batches batch set
            tries = tries + 1, first_tried_at = coalesce(first_tried_at, $1), tried_at = $1, claimed_until = $2
        from due, billing.stripe_customers customer
        where batch.id = due.id and customer.tenant_id = batch.tenant_id
        returning batch.id, identifier, batch.tenant_id, customer_id, starts_at, hour, at, microusd as micro, tries
        """,
        now,
        until,
        tried_since,
        limit,
    )
    return [Claimed(**row) for row in rows]


async def redate(connection: Connection, id: int, at: datetime) -> None:
    """Of a batch that is claimed for its first try."""
    await connection.execute("update billing.meter_batches set at = $2 where id = $1", id, at)


async def delivered(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    await connection.execute(
        """
        update billing.meter_batches set state = 'delivered', ended_at = $2, claimed_until = null, problem = ''
        where id = any($1) and state = 'ready'
        """,
        list(ids),
        now,
    )


async def delay(connection: Connection, id: int, next_try_at: datetime, problem: str) -> None:
    await connection.execute(
        """
        update billing.meter_batches set next_try_at = $2, claimed_until = null, problem = $3
        where id = $1 and state = 'ready'
        """,
        id,
        next_try_at,
        problem,
    )


async def doubt(connection: Connection, now: datetime, tried_before: datetime) -> int:
    """Batches first tried before then are sent no more; how many those are."""
    status = await connection.execute(
        """
        update billing.meter_batches set state = 'uncertain'
        where state = 'ready' and first_tried_at <= $2 and (claimed_until is null or claimed_until <= $1)
        """,
        now,
        tried_before,
    )
    return int(status.split()[1])


async def doubts(connection: Connection, quiet_since: datetime) -> list[Doubt]:
    """Of customers and hours of which nothing was tried since then, and nothing is under way."""
    rows = await connection.fetch(
        """
        select tenant_id, customer_id, starts_at, date_trunc('hour', at, 'UTC') as since, min(hour) as hour,
            coalesce(sum(counted_microusd) filter (where state in ('delivered', 'settled')), 0)::bigint as known,
            array_agg(id order by id) filter (where state = 'uncertain') as ids,
            array_agg(microusd order by id) filter (where state = 'uncertain') as micros
        from billing.meter_batches join billing.stripe_customers using (tenant_id)
        where (tenant_id, date_trunc('hour', at, 'UTC')) in (
            select tenant_id, date_trunc('hour', at, 'UTC') from billing.meter_batches where state = 'uncertain'
        )
        group by 1, 2, 3, 4
        having max(tried_at) <= $1 and not bool_or(state = 'ready' and tries > 0)
        """,
        quiet_since,
    )
    return [
        Doubt(
            tenant_id=row["tenant_id"],
            customer_id=row["customer_id"],
            starts_at=row["starts_at"],
            since=row["since"],
            hour=row["hour"],
            known=row["known"],
            sent=tuple(map(Uncertain, row["ids"], row["micros"])),
        )
        for row in rows
    ]


async def settle(connection: Connection, counted: dict[int, int], now: datetime) -> bool:
    """False, and nothing is done, when somebody else has settled some of them."""
    found = await connection.fetch(
        "select id from billing.meter_batches where id = any($1) and state = 'uncertain' order by id for update",
        list(counted),
    )
    if len(found) < len(counted):
        return False
    await connection.execute(
        """
        update billing.meter_batches set state = 'settled', counted_microusd = new.counted, ended_at = $3
        from unnest($1::bigint[], $2::bigint[]) as new (id, counted) where meter_batches.id = new.id
        """,
        list(counted),
        list(counted.values()),
        now,
    )
    return True


async def backlog(connection: Connection, now: datetime) -> Backlog:
    row = await connection.fetchrow(
        """
        select least(
            (select min(created_at) from billing.outbox where sent_at is null
                and tenant_id not in (select tenant_id from billing.unmetered)),
            (select min(created_at) from billing.meter_batches where state in ('ready', 'uncertain'))
        ) as oldest, (select count(*) from billing.meter_batches where state = 'uncertain') as uncertain
        """
    )
    assert row is not None
    age = now - row["oldest"] if row["oldest"] else timedelta()
    return Backlog(max(age.total_seconds(), 0.0), row["uncertain"])
