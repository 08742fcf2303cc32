"""Months leave the ledger whole, billed, and once: no line is lost, none is charged again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from billing import archive, invoices, ledger
from billing.invoicing import following
from common.db import Pool
from common.errors import Conflict
from common.ids import first_id

NOW = datetime.now(UTC)
MONTH = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
LATER = NOW + timedelta(days=100)


@pytest.fixture
def records(record: Any) -> list[Any]:
    start = MONTH + (NOW - MONTH) / 2
    return [
        record(id=UUID(int=first_id(start).int + n), started_at=start, time=start, first_token_at=start, ended_at=start)
        for n in range(50)
    ]


async def test_a_month_is_dropped_when_it_is_filed_and_billed_and_never_charged_again(
    pool: Pool, put_price: Any, records: Any, tmp_path: Path, books: Any
) -> None:
    await put_price(since=timedelta(days=34))
    await ledger.record(pool, records)
    before = await books()
    bill = await invoices.of_month(pool, records[0].tenant_id, MONTH, LATER)
    file = tmp_path / "usage.csv.gz"
    filed = await archive.export(pool, MONTH, file)
    assert (filed.lines, filed.cost) == (50, before.cost)
    with pytest.raises(Conflict, match="is not billed yet"):
        await archive.drop(pool, MONTH, file, 2, LATER)
    await pool.execute("update billing.outbox set sent_at = now()")
    with pytest.raises(Conflict, match="is kept until"):
        await archive.drop(pool, MONTH, file, 2, NOW)
    await ledger.record(pool, [records[0].__class__(**{**_fields(records[0]), "id": UUID(int=records[-1].id.int + 1)})])
    await pool.execute("update billing.outbox set sent_at = now()")
    with pytest.raises(Conflict, match="has 51 lines, the file 50"):
        await archive.drop(pool, MONTH, file, 2, LATER)
    assert len((await books()).usage) == 51

    filed = await archive.export(pool, MONTH, file)
    assert await archive.drop(pool, MONTH, file, 2, LATER) == filed
    assert (await books()).usage == []
    with pytest.raises(ledger.Archived) as raised:
        await ledger.record(pool, records)
    assert raised.value.reasons[0].endswith("is archived")
    again = await invoices.of_month(pool, records[0].tenant_id, MONTH, LATER)
    assert (again.requests, len(again.lines), bill.requests) == (51, len(bill.lines), 50)
    with pytest.raises(Conflict, match="is not there"):
        await archive.drop(pool, MONTH, file, 2, LATER)


async def test_a_batch_that_stripe_has_not_acknowledged_keeps_its_month(
    pool: Pool, put_price: Any, records: Any, tmp_path: Path
) -> None:
    await put_price(since=timedelta(days=34))
    await ledger.record(pool, records)
    tenant, hour = records[0].tenant_id, records[0].started_at
    await pool.execute("update billing.outbox set sent_at = now()")
    await pool.execute("insert into billing.stripe_customers values ($1, 'c', 's', now(), 'n', 'e', 0)", tenant)
    await pool.execute(
        """
        insert into billing.meter_batches (identifier, tenant_id, hour, at, microusd, counted_microusd, next_try_at)
        values ('b', $1, $2, $2, 1, 1, now())
        """,
        tenant,
        hour,
    )
    file = tmp_path / "usage.csv.gz"
    await archive.export(pool, MONTH, file)
    with pytest.raises(Conflict, match="is not billed yet"):
        await archive.drop(pool, MONTH, file, 2, LATER)
    await pool.execute("update billing.meter_batches set state = 'delivered'")
    await archive.drop(pool, MONTH, file, 2, LATER)


async def test_a_damaged_file_drops_nothing(
    pool: Pool, put_price: Any, records: Any, tmp_path: Path, books: Any
) -> None:
    await put_price(since=timedelta(days=34))
    await ledger.record(pool, records)
    file = tmp_path / "usage.csv.gz"
    await archive.export(pool, MONTH, file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(Conflict, match="is damaged"):
        await archive.drop(pool, MONTH, file, 2, following(LATER))
    assert len((await books()).usage) == 50


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
