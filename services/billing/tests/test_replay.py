"""Replays, as an operator starts them: a subprocess of `crosslogic-billing` on real servers."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common import backlog as reading
from common import bus, db
from common.backlog import backlog
from common.bus import Bus
from common.db import Pool
from common.errors import Unavailable

Run = Callable[..., Awaitable[tuple[int, str, str]]]
COST = 12 * 100_000 + 5 * 10_000 + 64 * 400_000


@pytest.fixture
def command(postgres_dsn: str, nats_url: str) -> Run:
    async def run(*arguments: object, **environ: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "billing", *map(str, arguments),
            env=os.environ | {"POSTGRES_DSN": postgres_dsn, "NATS_URL": nats_url} | environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    return run


@pytest.fixture
async def empty(postgres_dsn: str, pool: Pool) -> AsyncIterator[tuple[str, Pool]]:
    """Another database with billing's schema and nothing in it."""
    dsn = f"{postgres_dsn}_empty"
    name = dsn.rsplit("/", 1)[1]
    await pool.execute(f'create database "{name}"')
    try:
        async with db.open_pool(dsn, "test") as other:
            await db.migrate(other, "billing")
            yield dsn, other
    finally:
        await pool.execute(f'drop database "{name}" with (force)')


@pytest.mark.usefixtures("service")
async def test_the_stream_makes_the_same_books_from_nothing_and_changes_none_that_are_there(
    put_price: Any, record: Any, send: Any, settled: Any, books: Any, read_books: Any, command: Run, empty: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    await put_price()
    events = [record() for _ in range(1500)]
    await send(*(msgspec.structs.replace(event, outcome="gateway_lost") for event in events[:50]), again=".lost")
    await send(*events)
    await send(record(model="unpriced"))
    await settled()
    before = await books()
    parked = tmp_path / "parked.jsonl"
    code, output, errors = await command("replay", "--parked", parked)
    assert (code, output) == (1, "read 1551, new 0, already there 1550, parked 1\n"), errors
    assert json.loads(parked.read_text())["reason"].startswith("no price for model unpriced")
    assert await books() == before

    dsn, other = empty
    terms = tmp_path / "terms.jsonl"
    assert (await command("save-terms", terms))[:2] == (0, "saved 1\n")
    assert (await command("load-terms", terms, POSTGRES_DSN=dsn))[:2] == (0, "added 1\n")
    assert (await command("load-terms", terms, POSTGRES_DSN=dsn))[:2] == (0, "added 0\n")
    code, output, errors = await command("replay", POSTGRES_DSN=dsn)
    assert (code, output.startswith("read 1551, new ")) == (1, True), errors
    assert await read_books(other) == before


async def test_a_file_of_saved_events_is_charged_once(
    put_price: Any, record: Any, books: Any, command: Run, tmp_path: Path
) -> None:
    await put_price()
    events = [record() for _ in range(30)]
    file = tmp_path / "events.jsonl"
    lines = [bus.encode(event) for event in events]
    file.write_bytes(b"\n".join([*lines, b"", b"garbage", *lines[:10]]) + b"\n")
    assert (await command("replay", file))[:2] == (1, "read 41, new 30, already there 10, parked 1\n")
    code, output, errors = await command("replay", file, NATS_URL="")
    assert (code, output) == (1, "read 41, new 0, already there 40, parked 1\n")
    assert "parked: not a usage record: JSON is malformed" in errors
    assert (await books()).cost == 30 * COST


async def test_only_what_is_asked_for_is_replayed(
    put_price: Any, record: Any, send: Any, client: Bus, command: Run
) -> None:
    await put_price()
    first, second = record(), record(tenant_id=record().id)
    await send(first, second)
    stored = [batch async for batch in backlog(client, "USAGE", "usage.recorded.v1.>")]
    assert [len(batch.bodies) for batch in stored] == [2]
    tenant = second.tenant_id
    assert (await command("replay", "--tenant", tenant))[1] == "read 1, new 1, already there 0, parked 0\n"
    later = (record().time + timedelta(hours=1)).isoformat()
    assert (await command("replay", "--since", later))[1] == "read 0, new 0, already there 0, parked 0\n"
    earlier = (first.time - timedelta(hours=1)).isoformat()
    assert (await command("replay", "--since", earlier))[1] == "read 2, new 1, already there 1, parked 0\n"


async def test_what_cannot_be_done_is_said(command: Run, tmp_path: Path) -> None:
    code, _, errors = await command("replay", NATS_URL="")
    assert (code, errors) == (2, "crosslogic-billing: NATS_URL is not set\n")
    code, _, errors = await command("replay", tmp_path / "none.jsonl")
    assert code == 2
    assert "No such file" in errors
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"table": "usage", "row": {}}\n')
    code, _, errors = await command("load-terms", wrong)
    assert (code, "usage" in errors) == (2, True)


async def test_a_backlog_is_whole_though_the_reader_is_cut_off(client: Bus, nats_url: str, record: Any) -> None:
    """Messages under way on a connection that breaks are gone: they are asked for again."""
    for number in range(300):
        await client.publish("usage.recorded.v1.x", b"%d" % number, str(number))
    found: list[bytes] = []
    async with bus.connect(nats_url, "reader", declare=False) as reader:
        async for batch in backlog(reader, "USAGE", "usage.recorded.v1.>", size=20):
            found += batch.bodies
            if len(found) in (40, 160):
                transport = reader.client._transport
                assert transport is not None
                transport.close()
    assert found == [b"%d" % number for number in range(300)]


async def test_a_server_that_stays_away_is_told(client: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAUSE", 0.01)
    with pytest.raises(Unavailable, match="cannot be read"):
        async for _ in backlog(client, "NONE", ">"):
            pass
