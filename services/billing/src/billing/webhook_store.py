"""Postgres: Stripe's events, invoices, and who is suspended for not paying. Functions take the connection first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from billing.stripe_events import Event, Known
from common.db import Connection

State: TypeAlias = Literal["applied", "stale", "ignored", "parked"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str
    created_at: datetime
    state: State
    reason: str
    received_at: datetime


class Unmirrored(msgspec.Struct, frozen=True, kw_only=True):
    """A credit of which Stripe does not know."""

    id: UUID
    tenant_id: UUID
    amount: int
    """Pico-dollars."""
    paid: bool
    expires_at: datetime | None


async def alone(connection: Connection, event_id: str) -> bool:
    """Until the transaction ends nobody else handles this event; False while somebody does."""
    return bool(
        await connection.fetchval(
            "select pg_try_advisory_xact_lock(hashtextextended('stripe.event.' || $1, 0))", event_id
        )
    )


async def known(connection: Connection, event_id: str) -> bool:
    return await connection.fetchval("select 1 from billing.stripe_events where id = $1", event_id) is not None


async def add(connection: Connection, event: Event, state: State, reason: str, body: bytes | None) -> None:
    await connection.execute(
        """
        insert into billing.stripe_events (id, type, created_at, state, reason, body) values ($1, $2, $3, $4, $5, $6)
        """,
        event.id,
        event.type,
        event.at,
        state,
        reason,
        body,
    )


async def parked(connection: Connection, event_id: str) -> bytes | None:
    """The body of a parked event, nobody else's until the transaction ends; None when it is not parked."""
    body = await connection.fetchval(
        "select body from billing.stripe_events where id = $1 and state = 'parked' for update", event_id
    )
    assert body is None or isinstance(body, bytes)
    return body


async def end(connection: Connection, event_id: str, state: State, reason: str) -> None:
    """Of one that was parked; its body is kept while it is."""
    await connection.execute(
        """
        update billing.stripe_events set state = $2, reason = $3, body = case when $2 = 'parked' then body end
        where id = $1
        """,
        event_id,
        state,
        reason,
    )


async def seen(connection: Connection, state: State, limit: int) -> list[Seen]:
    """The newest first."""
    rows = await connection.fetch(
        """
        select id, type, created_at, state, reason, received_at from billing.stripe_events where state = $1
        order by received_at desc, id limit $2
        """,
        state,
        limit,
    )
    return [Seen(**row) for row in rows]


async def tenant(connection: Connection, customer_id: str) -> UUID | None:
    found = await connection.fetchval(
        "select tenant_id from billing.stripe_customers where customer_id = $1", customer_id
    )
    assert found is None or isinstance(found, UUID)
    return found


async def invoice(connection: Connection, invoice_id: str) -> Known | None:
    """Nobody else changes it until the transaction ends, also where it is not there yet."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('stripe.invoice.' || $1, 0))", invoice_id)
    row = await connection.fetchrow(
        "select status, told_at, failed_at from billing.stripe_invoices where invoice_id = $1", invoice_id
    )
    return Known(**row) if row else None


async def put_invoice(connection: Connection, invoice_id: str, tenant_id: UUID, known: Known) -> None:
    await connection.execute(
        """
        insert into billing.stripe_invoices (invoice_id, tenant_id, status, told_at, failed_at)
        values ($1, $2, $3, $4, $5)
        on conflict (invoice_id) do update set status = $3, told_at = $4, failed_at = $5
        """,
        invoice_id,
        tenant_id,
        known.status,
        known.told_at,
        known.failed_at,
    )


async def decide(connection: Connection, failed_before: datetime, now: datetime) -> None:
    """Whoever has an invoice whose payment failed before then is to be suspended."""
    await connection.execute(
        """
        insert into billing.suspensions (tenant_id, decided_at)
        select distinct tenant_id, $2::timestamptz from billing.stripe_invoices where failed_at <= $1
        on conflict do nothing
        """,
        failed_before,
        now,
    )


async def unsettled(connection: Connection) -> Sequence[UUID]:
    """Tenants of whom the gateway must hear: suspended and it does not know, or paid."""
    rows = await connection.fetch(
        """
        select tenant_id from billing.suspensions suspension where told_at is null or not exists (
            select from billing.stripe_invoices where tenant_id = suspension.tenant_id and failed_at is not null
        ) order by tenant_id
        """
    )
    return [row["tenant_id"] for row in rows]


async def hold_suspension(connection: Connection, tenant_id: UUID) -> bool | None:
    """Whether the tenant owes; nobody else tells the gateway until the transaction ends. None when there is none, or
    somebody else has it."""
    found = await connection.fetchval(
        """
        select exists (select from billing.stripe_invoices where tenant_id = $1 and failed_at is not null)
        from billing.suspensions where tenant_id = $1 for update skip locked
        """,
        tenant_id,
    )
    return None if found is None else bool(found)


async def told(connection: Connection, tenant_id: UUID, now: datetime) -> None:
    await connection.execute("update billing.suspensions set told_at = $2 where tenant_id = $1", tenant_id, now)


async def lift(connection: Connection, tenant_id: UUID) -> None:
    await connection.execute("delete from billing.suspensions where tenant_id = $1", tenant_id)


async def unmirrored(connection: Connection, now: datetime, limit: int) -> list[Unmirrored]:
    """Credits that have not expired."""
    rows = await connection.fetch(
        """
        select id, tenant_id, amount_picousd as amount, kind = 'paid' as paid, expires_at
        from billing.credits credit
        where (expires_at is null or expires_at > $1)
            and not exists (select from billing.stripe_grants where credit_id = credit.id)
        order by id limit $2
        """,
        now,
        limit,
    )
    return [Unmirrored(**{**row, "amount": int(row["amount"])}) for row in rows]


async def add_grant(connection: Connection, credit_id: UUID, grant_id: str, cents: int) -> None:
    await connection.execute(
        "insert into billing.stripe_grants (credit_id, grant_id, cents) values ($1, $2, $3) on conflict do nothing",
        credit_id,
        grant_id,
        cents,
    )
