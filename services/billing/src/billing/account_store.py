"""Postgres: budgets, credits, and one tenant's account in one snapshot. Functions take the connection first."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg
import msgspec

from billing import plan_store, store
from billing.entitlement import Terms, timeline
from billing.statement import Grant, Kind, Statement, Used, boundaries, hourly_from, statement
from common.db import Connection


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """Of one tenant, in one snapshot of the ledger. Amounts are pico-dollars."""

    version: int
    now: datetime
    monthly: int | None
    hard: bool
    keys: dict[UUID, int]
    """Spent this month."""
    key_budgets: dict[UUID, int]
    """Of keys used this month, as gateways told."""
    terms: list[Terms]
    grants: list[Grant]
    spent: int
    """Ever."""
    statement: Statement
    """Of this month, and of all that credits have paid."""
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
    connection: Connection,
    *,
    id: UUID,
    tenant_id: UUID,
    amount: int,
    reason: str,
    expires_at: datetime | None,
    by: str,
    kind: Kind = "paid",
) -> bool:
    """False where the credit `id` is there already."""
    status = await connection.execute(
        """
        insert into billing.credits (id, tenant_id, amount_picousd, kind, reason, expires_at, created_by)
        values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing
        """,
        id,
        tenant_id,
        Decimal(amount),
        kind,
        reason,
        expires_at,
        by,
    )
    return status.endswith(" 1")


async def grants(connection: Connection, tenant_id: UUID) -> list[Grant]:
    rows = await connection.fetch("select * from billing.credits where tenant_id = $1 order by id", tenant_id)
    return [
        Grant(
            id=row["id"],
            kind=row["kind"],
            amount=int(row["amount_picousd"]),
            granted_at=row["created_at"],
            expires_at=row["expires_at"],
            reason=row["reason"],
        )
        for row in rows
    ]


async def terms(connection: Connection, tenant_id: UUID) -> list[Terms]:
    return timeline(await plan_store.assignments(connection, [tenant_id]), await plan_store.versions(connection))


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
    now = await store.now(connection)
    of_plan, credits = await terms(connection, tenant_id), await grants(connection, tenant_id)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    marks = boundaries(of_plan, credits, min([month, *(grant.first for grant in credits)]), now)
    # one statement is one snapshot
    rows = await connection.fetch(
        """
        select 'budget' as kind, null::uuid as id, monthly_picousd as amount, null::timestamptz as hour,
            null::numeric as tokens, null::numeric as requests, hard
        from billing.budgets where tenant_id = $1
        union all
        select 'key', api_key_id, sum(cost_picousd), null, null, null, null from billing.usage_hourly
        where tenant_id = $1 and hour >= $3 group by api_key_id
        union all
        select 'limit', api_key_id, monthly_picousd, null, null, null, null from billing.key_budgets
        where tenant_id = $1 and told_at >= $3
        union all
        select 'used', null, sum(cost_picousd), at, sum(input_tokens + output_tokens), sum(requests), null
        from (
            select *, case
                when hour >= $5 then hour else ($4::timestamptz[])[width_bucket(hour, $4::timestamptz[])]
            end as at
            from billing.usage_hourly where tenant_id = $1 and hour >= ($4::timestamptz[])[1]
        ) as found
        group by at
        union all
        select 'spent', null, sum(cost_picousd), null, null, null, null
        from billing.usage_hourly where tenant_id = $1
        union all
        select 'recorded', id, null, null, null, null, null from billing.usage where id = any($2)
        """,
        tenant_id,
        list(ids),
        month,
        marks,
        hourly_from(of_plan),
    )
    of: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        of.setdefault(row["kind"], []).append(row)
    used = [
        Used(
            hour=row["hour"],
            requests=int(row["requests"]),
            input_tokens=int(row["tokens"]),
            cost=int(row["amount"]),
        )
        for row in of.get("used", [])
    ]
    budget = of.get("budget")
    return Sheet(
        version=version,
        now=now,
        monthly=int(budget[0]["amount"]) if budget else None,
        hard=bool(budget and budget[0]["hard"]),
        keys={row["id"]: int(row["amount"]) for row in of.get("key", [])},
        key_budgets={row["id"]: int(row["amount"]) for row in of.get("limit", [])},
        terms=of_plan,
        grants=credits,
        spent=int(of["spent"][0]["amount"] or 0),
        statement=statement(used, of_plan, credits, now),
        recorded=[row["id"] for row in of.get("recorded", [])],
    )


async def owed(
    connection: Connection, tenant_id: UUID, month: datetime, until: datetime
) -> tuple[Statement, list[Grant]]:
    """The statement with all of a month's lines, and the credits that its lines name; `until` is in the month, or its
    last moment."""
    of_plan, credits = await terms(connection, tenant_id), await grants(connection, tenant_id)
    marks = boundaries(of_plan, credits, min([month, *(grant.first for grant in credits)]), until)
    rows = await connection.fetch(
        """
        select at, sum(requests) as requests, sum(input_tokens) as input_tokens,
            sum(cached_tokens) as cached_tokens, sum(output_tokens) as output_tokens, sum(cost_picousd) as cost
        from (
            select *, case
                when hour >= $3 then hour else ($2::timestamptz[])[width_bucket(hour, $2::timestamptz[])]
            end as at
            from billing.usage_hourly where tenant_id = $1 and hour >= ($2::timestamptz[])[1] and hour <= $4
        ) as found
        group by at
        """,
        tenant_id,
        marks,
        hourly_from(of_plan),
        until,
    )
    used = [
        Used(
            hour=row["at"],
            requests=int(row["requests"]),
            input_tokens=int(row["input_tokens"]),
            cached_tokens=int(row["cached_tokens"]),
            output_tokens=int(row["output_tokens"]),
            cost=int(row["cost"]),
        )
        for row in rows
    ]
    return statement(used, of_plan, credits, until), credits


async def put_key_budgets(connection: Connection, tenant_id: UUID, budgets: Mapping[UUID, int]) -> bool:
    """In order of key, so that no two transactions wait for each other. Whether any is new."""
    keys = sorted(budgets)
    status = await connection.execute(
        """
        insert into billing.key_budgets as known (api_key_id, tenant_id, monthly_picousd, told_at)
        select id, $1, amount, now() from unnest($2::uuid[], $3::numeric[]) as told (id, amount)
        on conflict (api_key_id) do update set monthly_picousd = excluded.monthly_picousd, told_at = excluded.told_at
        where known.monthly_picousd <> excluded.monthly_picousd
            or known.told_at < date_trunc('month', excluded.told_at, 'UTC')
        """,
        tenant_id,
        keys,
        [Decimal(budgets[key]) for key in keys],
    )
    return not status.endswith(" 0")


async def spenders(connection: Connection) -> list[UUID]:
    """Tenants with a budget, a credit, a plan, or usage this month."""
    rows = await connection.fetch(
        """
        select tenant_id from billing.budgets union select tenant_id from billing.credits
        union select tenant_id from billing.assignments
        union select tenant_id from billing.usage_hourly where hour >= date_trunc('month', now(), 'UTC')
        """
    )
    return [row["tenant_id"] for row in rows]
