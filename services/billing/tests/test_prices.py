"""Prices are put as versions, and none changes what was charged."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

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


async def test_only_a_first_price_may_begin_in_the_past(ask: Any) -> None:
    eu = PRICE | {"region": "eu"}
    assert (await ask("PUT", "/admin/prices", eu | {"effective_from": ago(days=20)}))[0] == 200
    assert (await ask("PUT", "/admin/prices", PRICE | {"effective_from": ago(days=34)}))[0] == 200
    for price in (eu, PRICE, PRICE | {"region": "us"}):
        for since in (ago(days=34, hours=1), ago(minutes=1)):
            status, answer = await ask("PUT", "/admin/prices", price | {"effective_from": since})
            assert (status, answer["error"]["param"]) == (400, "effective_from")


async def test_two_prices_of_one_moment_conflict(ask: Any) -> None:
    later = PRICE | {"effective_from": "2100-01-01T00:00:00Z"}
    assert (await ask("PUT", "/admin/prices", later))[0] == 200
    assert (await ask("PUT", "/admin/prices", later))[0] == 409


async def test_history_cannot_be_edited_even_in_sql(pool: Pool, put_price: Any) -> None:
    await put_price()
    for statement in ("update billing.prices set input = 0", "delete from billing.prices", "truncate billing.prices"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await pool.execute(statement)
