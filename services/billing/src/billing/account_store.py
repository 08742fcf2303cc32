"""Postgres: budgets, credits, and one tenant's account in one snapshot. Functions take the connection first."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from billing.credits import Credit
from common.db import Connection


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """Of one tenant, in one snapshot of the ledger. Amounts are pico-dollars."""

    version: int
    now: datetime
    monthly: int | None
    hard: bool
    keys: dict[UUID, int]
    """Spent this month."""
    credits: list[Credit]
    spent_on_credit: int
    recorded: list[UUID]
    """Those asked for that the ledger has."""


async def put_budget(connection: Connection, tenant_id: UUID, monthly: int | None, hard: bool, by: str) -> None:
    """None removes it."""
    if monthly is None:
        await connection.execute("delete from billing.budgets where tenant_id = $1", tenant_id)
        return
    await connection.execute(
        """
        insert into billing.budgets (tenant_id, monthly_picousd, hard, updated_by) values ($1, $2, $3, $4)
        on conflict (tenant_id) do update set monthly_picousd = $2, hard = $3, updated_by = $4, updated_at = now()
        """,
        tenant_id,
        Decimal(monthly),
        hard,
        by,
    )


async def add_credit(
    connection: Connection, *, id: UUID, tenant_id: UUID, amount: int, reason: str, expires_at: datetime | None, by: str
) -> None:
    await connection.execute(
        """
        insert into billing.credits
            (id, tenant_id, amount_picousd, spent_before_picousd, reason, expires_at, created_by)
        select $1, $2, $3, coalesce(
            (select spent_before_picousd from billing.credits where tenant_id = $2 order by id limit 1),
            (select sum(cost_picousd) from billing.usage_hourly where tenant_id = $2), 0), $4, $5, $6
        """,
        id,
        tenant_id,
        Decimal(amount),
        reason,
        expires_at,
        by,
    )


async def next_version(connection: Connection, tenant_id: UUID) -> int:
    """Higher than any before, even of a database that was lost; others wait for it until the transaction ends."""
    version = await connection.fetchval(
        """
        insert into billing.accounts as known (tenant_id, version)
        values ($1, (extract(epoch from clock_timestamp()) * 1000)::bigint)
        on conflict (tenant_id) do update set version = greatest(known.version + 1, excluded.version)
        returning version
        """,
        tenant_id,
    )
    assert isinstance(version, int)
    return version


async def sheet(connection: Connection, tenant_id: UUID, ids: Sequence[UUID]) -> Sheet:
    """After `next_version` in the same transaction: then a higher version has seen all that a lower one has seen."""
    version = await next_version(connection, tenant_id)
    # one statement is one snapshot
    rows = await connection.fetch(
        """
        with now as (select clock_timestamp() as at),
        first as (select spent_before_picousd from billing.credits where tenant_id = $1 order by id limit 1)
        select 'now' as kind, null::uuid as id, null::numeric as amount, at, null::numeric as spent, null::bool as hard
        from now
        union all
        select 'budget', null, monthly_picousd, null, null, hard from billing.budgets where tenant_id = $1
        union all
        select 'key', api_key_id, sum(cost_picousd), null, null, null from billing.usage_hourly, now
        where tenant_id = $1 and hour >= date_trunc('month', at, 'UTC') group by api_key_id
        union all
        select 'credit', c.id, c.amount_picousd, c.expires_at, (
            select coalesce(sum(cost_picousd), 0) from billing.usage_hourly u
            where u.tenant_id = $1 and u.hour < coalesce(c.expires_at, 'infinity')
        ) - spent_before_picousd, null
        from billing.credits c where c.tenant_id = $1
        union all
        select 'spent', null, (select sum(cost_picousd) from billing.usage_hourly where tenant_id = $1)
            - spent_before_picousd, null, null, null
        from first
        union all
        select 'recorded', id, null, null, null, null from billing.usage where id = any($2)
        """,
        tenant_id,
        list(ids),
    )
    of: dict[str, list[tuple[UUID | None, int, datetime | None, int, bool]]] = {}
    for row in rows:
        line = (row["id"], int(row["amount"] or 0), row["at"], int(row["spent"] or 0), bool(row["hard"]))
        of.setdefault(row["kind"], []).append(line)
    budget = of.get("budget")
    at = of["now"][0][2]
    assert at is not None
    return Sheet(
        version=version,
        now=at,
        monthly=budget[0][1] if budget else None,
        hard=bool(budget and budget[0][4]),
        keys={id: amount for id, amount, *_ in of.get("key", []) if id is not None},
        credits=[Credit(amount=a, expires_at=e, spent=s) for _, a, e, s, _ in of.get("credit", [])],
        spent_on_credit=of["spent"][0][1] if "spent" in of else 0,
        recorded=[id for id, *_ in of.get("recorded", []) if id is not None],
    )


async def spenders(connection: Connection) -> list[UUID]:
    """Tenants with a budget, a credit, or usage this month."""
    rows = await connection.fetch(
        """
        select tenant_id from billing.budgets union select tenant_id from billing.credits
        union select tenant_id from billing.usage_hourly where hour >= date_trunc('month', now(), 'UTC')
        """
    )
    return [row["tenant_id"] for row in rows]
