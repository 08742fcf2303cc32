"""Usage as billing answers it, as comma-separated values (RFC 4180). Pure."""

import csv
import io

import msgspec

NAMES = ("model", "api_key_id", "environment_id", "day", "hour")
SUMS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "cost_usd")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")


class _Usage(msgspec.Struct, frozen=True):
    rows: list[dict[str, int | str]]


def usage(body: bytes) -> bytes:
    """A header, then the rows in their order; columns that no row has are left out."""
    rows = msgspec.json.decode(body, type=_Usage).rows
    columns = [*(name for name in NAMES if any(name in row for row in rows)), *SUMS]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(column, "")) for column in columns] for row in rows])
    return out.getvalue().encode()


def _cell(value: int | str) -> int | str:
    """A spreadsheet must not take a name for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value
