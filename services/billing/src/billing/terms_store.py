"""Postgres: rows of the tables that hold what was agreed, as JSON that names their columns."""

from typing import Literal, TypeAlias

from common.db import Connection

Table: TypeAlias = Literal["plans", "assignments", "prices", "credits", "budgets"]
_ROWS: dict[Table, str] = {
    "plans": "select to_jsonb(t)::text from billing.plans t order by id",
    "assignments": "select to_jsonb(t)::text from billing.assignments t order by id",
    "prices": "select to_jsonb(t)::text from billing.prices t order by created_at, id",
    "credits": "select to_jsonb(t)::text from billing.credits t order by id",
    "budgets": "select to_jsonb(t)::text from billing.budgets t order by tenant_id",
}
# what a file from before a column was there means by its absence is named here
_ADD: dict[Table, str] = {
    "plans": """
        insert into billing.plans select * from jsonb_populate_record(null::billing.plans, $1::text::jsonb)
        on conflict do nothing
        """,
    "assignments": """
        insert into billing.assignments select * from jsonb_populate_record(null::billing.assignments, $1::text::jsonb)
        on conflict do nothing
        """,
    "prices": """
        insert into billing.prices select * from jsonb_populate_record(
            null::billing.prices, '{"plan": ""}'::jsonb || $1::text::jsonb)
        on conflict do nothing
        """,
    "credits": """
        insert into billing.credits select * from jsonb_populate_record(
            null::billing.credits, '{"kind": "paid"}'::jsonb || $1::text::jsonb)
        on conflict do nothing
        """,
    "budgets": """
        insert into billing.budgets select * from jsonb_populate_record(null::billing.budgets, $1::text::jsonb)
        on conflict do nothing
        """,
}


async def rows(connection: Connection) -> list[tuple[Table, str]]:
    """(Table, row)s."""
    found: list[tuple[Table, str]] = []
    for table, query in _ROWS.items():
        found += [(table, str(row[0])) for row in await connection.fetch(query)]
    return found


async def add(connection: Connection, table: Table, row: str) -> int:
    """1 where it was not there."""
    done: str = await connection.execute(_ADD[table], row)
    return int(done.split()[-1])
