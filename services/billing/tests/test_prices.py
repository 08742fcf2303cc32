"""Prices are put as versions, and none changes what was charged."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from billing import ledger
from common.db import Pool

pytestmark = pytest.mark.usefixtures("service")

PRICE = {"model": "m", "input_usd_per_million": 0.15, "output_usd_per_million": "0.6"}


def ago(**span: int) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


async def test_a_new_version_is_current_and_the_old_one_stays(ask: Any) -> None:
    _, first = await ask("PUT", "/admin/prices", PRICE)
    status, second = await ask("PUT", "/admin/prices", PRICE | {"input_usd_per_million": 1})
    _, later = await ask("PUT", "/admin/prices", PRICE | {"effective_from": "2100-01-01"})
    _, eu = await ask("PUT", "/admin/prices", PRICE | {"region": "eu", "cached_input_usd_per_million": "0.000001"})
    assert status == 200
    assert (first["input_usd_per_million"], first["cached_input_usd_per_million"]) == ("0.15", "0.15")
    assert (second["input_usd_per_million"], second["created_by"], second["current"]) == ("1.00", "test", True)
    assert eu["cached_input_usd_per_million"] == "0.000001"
    _, answer = await ask("GET", "/admin/prices", model="m")
    current = {price["id"]: price["current"] for price in answer["prices"]}
    assert current == {first["id"]: False, second["id"]: True, later["id"]: False, eu["id"]: True}
    assert (await ask("GET", "/admin/prices"))[1] == answer
    assert (await ask("GET", "/admin/prices", model="x"))[1] == {"prices": []}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_usd_per_million": "0.0000001"}, "input_usd_per_million"),
        ({"input_usd_per_million": -1}, "input_usd_per_million"),
        ({"output_usd_per_million": "cheap"}, "output_usd_per_million"),
        ({"output_usd_per_million": "NaN"}, "output_usd_per_million"),
        ({"output_usd_per_million": "1e999999999"}, "output_usd_per_million"),
        ({"cached_input_usd_per_million": 1e-7}, "cached_input_usd_per_million"),
        ({"model": ""}, "model"),
        ({"model": "a\0b"}, "model"),
        ({"region": "e u"}, "region"),
        ({"effective_from": "soon"}, "effective_from"),
        ({"effective_from": ago(days=36)}, "effective_from"),
        ({"price": 1}, "price"),
    ],
)
async def test_a_bad_price_names_its_field(ask: Any, fields: dict[str, Any], param: str) -> None:
    status, answer = await ask("PUT", "/admin/prices", PRICE | fields)
    assert (status, answer["error"]["param"]) == (400, param)


EU, US = PRICE | {"region": "eu"}, PRICE | {"region": "us"}


@pytest.mark.parametrize(
    ("known", "price", "since", "allowed"),
    [
        ([], PRICE, 34, True),
        ([(PRICE, 20)], PRICE, 10, False),
        ([(PRICE, 20)], PRICE, 34, True),  # ends where the other begins: in between nothing had a price
        ([(PRICE, 20)], EU, 10, False),
        ([(PRICE, 20)], EU, 34, False),  # from 20 days ago on the one for any region was in force
        ([(EU, 20)], EU, 34, True),
        ([(EU, 20)], EU, 10, False),
        ([(EU, 20)], PRICE, 10, True),  # where eu had a price of its own it keeps it
        ([(EU, 20), (PRICE, 10)], EU, 34, True),
        ([(EU, 20), (PRICE, 25)], EU, 34, False),
        ([(EU, 20)], US, 34, True),
        ([(PRICE, 20), (PRICE, 0)], PRICE, 34, True),
        ([(PRICE, 20), (PRICE, 0)], PRICE, 10, False),
    ],
)
async def test_a_price_may_begin_in_the_past_where_there_was_none(
    ask: Any, known: list[tuple[dict[str, Any], int]], price: dict[str, Any], since: int, allowed: bool
) -> None:
    for other, days in known:
        assert (await ask("PUT", "/admin/prices", other | ({"effective_from": ago(days=days)} if days else {})))[
            0
        ] == 200
    status, answer = await ask("PUT", "/admin/prices", price | {"effective_from": ago(days=since)})
    assert status == 200 if allowed else (status, answer["error"]["param"]) == (400, "effective_from")


async def test_a_price_begins_after_the_last_request_that_was_charged(
    ask: Any, pool: Pool, put_price: Any, record: Any
) -> None:
    await put_price("m")
    ahead = datetime.now(UTC) + timedelta(minutes=4)
    await ledger.record(pool, [record(model="m", region="eu", started_at=ahead), record(model="m"), record(model="m")])
    for price in (PRICE, EU):
        _, answer = await ask("PUT", "/admin/prices", price)
        assert datetime.fromisoformat(answer["effective_from"]) == ahead + timedelta(microseconds=1)
        status, answer = await ask("PUT", "/admin/prices", price | {"effective_from": ahead.isoformat()})
        assert (status, answer["error"]["param"]) == (400, "effective_from")
    _, answer = await ask("PUT", "/admin/prices", US)
    assert datetime.fromisoformat(answer["effective_from"]) < ahead


async def test_two_prices_of_one_moment_conflict(ask: Any) -> None:
    later = PRICE | {"effective_from": "2100-01-01T00:00:00Z"}
    assert (await ask("PUT", "/admin/prices", later))[0] == 200
    assert (await ask("PUT", "/admin/prices", later))[0] == 409


async def test_history_cannot_be_edited_even_in_sql(pool: Pool, put_price: Any) -> None:
    await put_price()
    for statement in ("update billing.prices set input = 0", "delete from billing.prices", "truncate billing.prices"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await pool.execute(statement)
