"""What a ledger cannot be rebuilt from events without, saved as lines of JSON: plans, prices, credits, budgets."""

from collections.abc import Iterable

import msgspec

from billing import terms_store
from common.db import Pool, transaction
from common.errors import invalid


class Line(msgspec.Struct, frozen=True):
    table: terms_store.Table
    row: msgspec.Raw
    """The columns of the table by name."""


async def save(pool: Pool) -> list[bytes]:
    """Lines in the order in which they must be loaded, the same for the same terms."""
    async with transaction(pool) as connection:
        rows = await terms_store.rows(connection)
    return [msgspec.json.encode(Line(table, msgspec.Raw(row.encode()))) for table, row in rows]


async def load(pool: Pool, lines: Iterable[bytes]) -> int:
    """Add those that are not there, all or none; returns how many. What is there stays as it is.

    Raises InvalidRequest for what is not a line of `save`.
    """
    try:
        found = [msgspec.json.decode(line, type=Line) for line in lines if line.strip()]
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise invalid(error) from error
    async with transaction(pool) as connection:
        return sum([await terms_store.add(connection, line.table, bytes(line.row).decode()) for line in found])
