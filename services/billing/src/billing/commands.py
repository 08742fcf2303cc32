"""`crosslogic-billing COMMAND`: what an operator does with a ledger beside the running service."""

import argparse
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import uvloop

from billing import archive, invoice_pages, invoices, money, replay, terms
from billing.known import Known
from billing.queries import moment, month
from billing.settings import CommandSettings
from common import bus, db, settings, telemetry
from common.backlog import backlog
from common.errors import ApiError, SettingsError

SIZE = 1000
MOST_SHOWN = 10
PROGRESS = 100_000  # events between lines of progress


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0, 1 when events could not be charged, 2 when it could not be done."""
    asked = _parser().parse_args(arguments)
    telemetry.configure_logging("billing", os.environ.get("LOG_LEVEL", "WARNING"))
    try:
        code: int = uvloop.run(asked.run(asked, settings.load(CommandSettings, os.environ, "billing")))
    except (SettingsError, ApiError, OSError) as error:
        sys.stderr.write(f"crosslogic-billing: {error}\n")
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("crosslogic-billing", description=f"{__doc__} Reads POSTGRES_DSN and NATS_URL.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("replay", help="charge events again; those that are charged change nothing")
    one.add_argument("file", nargs="?", type=Path, help="saved events as JSON lines; without it the stream USAGE")
    one.add_argument("--since", type=_moment, help="only what the stream stored from this time on (ISO 8601)")
    one.add_argument("--tenant", type=UUID, help="only this tenant's events of the stream")
    one.add_argument("--parked", type=Path, help="append what cannot be charged to this file, with the reasons")
    one.set_defaults(run=_replay)
    one = commands.add_parser("save-terms", help="write prices, credits and budgets as JSON lines")
    one.add_argument("file", type=Path)
    one.set_defaults(run=_save_terms)
    one = commands.add_parser("load-terms", help="add those that are not there")
    one.add_argument("file", type=Path)
    one.set_defaults(run=_load_terms)
    one = commands.add_parser("invoice", help="print a tenant's invoice of a month")
    one.add_argument("tenant", type=UUID)
    one.add_argument("month", type=_month, help="like 2026-11, in UTC")
    one.add_argument("--format", choices=("json", "html", "csv"), default="json")
    one.set_defaults(run=_invoice)
    one = commands.add_parser("archive", help="write a month of the ledger to a file, and perhaps drop it here")
    one.add_argument("month", type=_month, help="like 2026-11, in UTC")
    one.add_argument("file", type=Path, help="CSV, compressed by gzip")
    one.add_argument("--drop", action="store_true", help="once the file has all and all is billed")
    one.add_argument("--keep", type=int, default=13, metavar="MONTHS", help="never drop of the last (13)")
    one.set_defaults(run=_archive)
    return parser


def _moment(text: str) -> datetime:
    try:
        return moment(text, "since")
    except ApiError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _month(text: str) -> datetime:
    try:
        return month(text, "month")
    except ApiError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _pool(stack: AsyncExitStack, where: CommandSettings) -> db.Pool:
    pool = await stack.enter_async_context(db.open_pool(where.postgres_dsn, "billing-command", 2))
    await db.migrate(pool, "billing")
    return pool


async def _replay(asked: argparse.Namespace, where: CommandSettings) -> int:
    tally, shown = replay.Tally(), 0
    async with AsyncExitStack() as stack:
        pool = await _pool(stack, where)
        nats = await _nats(stack, where) if where.nats_url else None
        known = Known(nats) if nats else None
        parked = stack.enter_context(asked.parked.open("ab")) if asked.parked else None
        async for bodies, left in _events(stack, asked, nats):
            before = tally.read
            for refused in await replay.charge(pool, known, bodies, datetime.now(UTC), tally):
                if parked:
                    parked.write(msgspec.json.encode(refused) + b"\n")
                if (shown := shown + 1) <= MOST_SHOWN:
                    sys.stderr.write(f"parked: {refused.reason}\n")
            if tally.read // PROGRESS > before // PROGRESS:
                sys.stderr.write(f"{tally.line()}{'' if left is None else f', {left} to go'}\n")
    sys.stdout.write(f"{tally.line()}\n")
    return 1 if tally.parked else 0


async def _nats(stack: AsyncExitStack, where: CommandSettings) -> bus.Bus:
    connection = bus.connect(where.nats_url or "", "billing-command", where.nats_creds, declare=False)
    return await stack.enter_async_context(connection)


async def _events(
    stack: AsyncExitStack, asked: argparse.Namespace, nats: bus.Bus | None
) -> AsyncIterator[tuple[list[bytes], int | None]]:
    """Bodies, and how many are to come where that is known."""
    if asked.file:
        file = stack.enter_context(asked.file.open("rb"))
        for bodies in replay.saved(file, SIZE):
            yield bodies, None
        return
    if nats is None:
        raise SettingsError("NATS_URL is not set")
    subject = f"usage.recorded.v1.{asked.tenant or '>'}"
    async for batch in backlog(nats, "USAGE", subject, asked.since, SIZE):
        yield batch.bodies, batch.left


async def _save_terms(asked: argparse.Namespace, where: CommandSettings) -> int:
    async with AsyncExitStack() as stack:
        lines = await terms.save(await _pool(stack, where))
    asked.file.write_bytes(b"".join(line + b"\n" for line in lines))
    sys.stdout.write(f"saved {len(lines)}\n")
    return 0


async def _load_terms(asked: argparse.Namespace, where: CommandSettings) -> int:
    async with AsyncExitStack() as stack:
        added = await terms.load(await _pool(stack, where), asked.file.read_bytes().splitlines())
    sys.stdout.write(f"added {added}\n")
    return 0


async def _invoice(asked: argparse.Namespace, where: CommandSettings) -> int:
    async with AsyncExitStack() as stack:
        pool = await _pool(stack, where)
        invoice = await invoices.of_month(pool, asked.tenant, asked.month, datetime.now(UTC))
    sys.stdout.write(invoice_pages.written(invoice, asked.format))
    return 0


async def _archive(asked: argparse.Namespace, where: CommandSettings) -> int:
    async with AsyncExitStack() as stack:
        pool = await _pool(stack, where)
        filed = await archive.export(pool, asked.month, asked.file)
        sys.stdout.write(f"{filed.lines} lines, ${money.usd(filed.cost)}, sha256 {filed.sha256}\n")
        if asked.drop:
            await archive.drop(pool, asked.month, asked.file, asked.keep, datetime.now(UTC))
            sys.stdout.write("dropped\n")
    return 0
