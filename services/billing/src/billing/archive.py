"""Old months out of the ledger: to a compressed file that is read again before anything is dropped."""

import csv
import gzip
import hashlib
import os
import zlib
from datetime import datetime
from pathlib import Path

import msgspec

from billing import archive_store
from billing.invoicing import following
from billing.partition import partitions_of
from common.db import Pool, transaction
from common.errors import Conflict
from common.ids import first_id

LEAST_MONTHS = 2
"""That are kept: the stream replays 35 days, and gateways spool."""


class Filed(msgspec.Struct, frozen=True):
    lines: int
    cost: int
    """Pico-dollars."""
    sha256: str


async def export(pool: Pool, month: datetime, file: Path) -> Filed:
    """Write a month's lines; what is returned is what the file was found to have. The file is there whole or not."""
    (partition,) = partitions_of([first_id(month)])
    beside = file.with_name(f"{file.name}.part")
    with gzip.open(beside, "wb", compresslevel=6) as out:

        async def write(data: bytes) -> None:
            out.write(data)

        async with transaction(pool) as connection:
            await archive_store.copy_out(connection, partition, write)
    filed = read(beside)
    with beside.open("rb") as written:
        os.fsync(written.fileno())
    beside.replace(file)
    return filed


def read(file: Path) -> Filed:
    """What a file has. Raises Conflict for one that is damaged."""
    lines = cost = 0
    try:
        with gzip.open(file, "rt", newline="") as text:
            for row in csv.DictReader(text):
                lines += 1
                cost += int(row["cost_picousd"])
    except (EOFError, gzip.BadGzipFile, zlib.error, KeyError, ValueError) as error:
        raise Conflict(f"{file} is damaged: {error!r}") from error
    with file.open("rb") as content:
        return Filed(lines, cost, hashlib.file_digest(content, "sha256").hexdigest())


async def drop(pool: Pool, month: datetime, file: Path, keep_months: int, now: datetime) -> Filed:
    """Forget a month's lines that are all in the file; sums and invoices stay.

    Raises Conflict where the month is too young, the file lacks a line, or a line is not billed yet.
    """
    end = following(month)
    for _ in range(max(keep_months, LEAST_MONTHS)):
        end = following(end)
    if now < end:
        raise Conflict(f"{month:%Y-%m} is kept until {end:%Y-%m-%d}")
    (partition,) = partitions_of([first_id(month)])
    filed = read(file)
    async with transaction(pool) as connection:
        await archive_store.drop(
            connection, partition, month, following(month), lines=filed.lines, cost=filed.cost, sha256=filed.sha256
        )
    return filed
