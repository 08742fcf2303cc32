"""Postgres: rows of the tables that hold what was agreed, as JSON that names their columns."""

from typing import Literal, TypeAlias

from common.db import Connection

Table: TypeAlias = Literal["prices", "credits", "budgets"]
_ROWS: dict[Table, str] = {
    "prices": "select to_jsonb(t)::text from billing.prices t order by created_at, id",
    "credits": "select to_jsonb(t)::text from billing.credits t order by id",
    "budgets": "select to_jsonb(t)::text from billing.budgets t order by tenant_id",
}
_ADD: dict[Table, str] = {
    "prices": """
        insert into billing.prices select * from jsonb_populate_record(null::billing.prices, $1::text::jsonb)
        on conflict do nothing
        """,
    "credits": """
        insert into billing.credits select * from jsonb_populate_record(null::billing.credits, $1::text::jsonb)
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
