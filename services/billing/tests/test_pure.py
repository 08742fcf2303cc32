"""Money, prices, precedence, intake, queries and partitions, by tables."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import intake, money
from billing.partition import partitions_of
from billing.precedence import rank, strongest
from billing.pricing import Book, Price, cost
from billing.queries import hours, moment
from common import bus
from common.errors import InvalidRequest, Unprocessable
from common.ids import first_id, new_id

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0.00"),
        (10_000, "0.00000001"),
        (1, "0.000000000001"),
        (10**12, "1.00"),
        (1_200_000_000_000, "1.20"),
        (-(10**12) - 5, "-1.000000000005"),
        (123_456_789 * 10**12 + 10**9, "123456789.001"),
    ],
)
def test_dollars_are_exact_decimals(pico: int, text: str) -> None:
    assert money.usd(pico) == text


@given(st.integers(0, money.MOST_USD_PER_MILLION * 10**6))
def test_a_price_is_read_as_it_is_shown(pico: int) -> None:
    assert money.price(Decimal(money.usd(pico * 10**6)), "p") == pico


@pytest.mark.parametrize("text", ["1e-7", "-0.1", "NaN", "Infinity", "1000000.1", "1e-999999", "0.1234567"])
def test_a_price_that_cannot_be_kept_exactly_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        money.price(Decimal(text), "output_usd_per_million")
    assert raised.value.param == "output_usd_per_million"


def a_price(region: str, day: int, input: int = 0, cached: int = 0, output: int = 0) -> Price:
    return Price(
        id=new_id(),
        model="m",
        region=region,
        input=input,
        cached_input=cached,
        output=output,
        effective_from=NOW + day * DAY,
        created_at=NOW,
        created_by="",
    )


def test_the_price_in_force_is_the_regions_last_one_that_has_begun() -> None:
    a, b, eu = a_price("", 0), a_price("", 2), a_price("eu", 1)
    book = Book([b, eu, a])
    assert book.in_force("m", "", NOW - DAY) is None
    assert book.in_force("m", "eu", NOW) == a
    assert book.in_force("m", "eu", NOW + DAY) == eu
    assert book.in_force("m", "eu", NOW + 3 * DAY) == eu
    assert book.in_force("m", "us", NOW + 2 * DAY) == b
    assert book.in_force("m", "us", NOW + 2 * DAY - timedelta(microseconds=1)) == a
    assert book.in_force("n", "us", NOW) is None


def test_cached_tokens_pay_the_cached_price_only(record: Any) -> None:
    event = record(input_tokens=10**9, cached_tokens=10**9 - 1, output_tokens=10**9)
    assert cost(event, a_price("", 0, 10**12, 3, 10**12)) == 10**12 + 3 * (10**9 - 1) + 10**21


def test_a_true_record_outranks_the_reapers_and_more_tokens_outrank_fewer(record: Any) -> None:
    true = record(outcome="refused", output_tokens=0)
    more = msgspec.structs.replace(true, output_tokens=1)
    lost = msgspec.structs.replace(true, outcome="gateway_lost", output_tokens=99)
    assert rank(lost) < rank(true) < rank(more)
    assert strongest([more, lost, true]) == strongest([true, lost, more]) == {true.id: more}


def test_times_are_kept_in_utc(record: Any) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    event = record()
    elsewhere = msgspec.structs.replace(event, started_at=event.started_at.astimezone(zone), first_token_at=None)
    read = intake.read(bus.encode(elsewhere), NOW)
    assert bus.encode(read) == bus.encode(msgspec.structs.replace(event, first_token_at=None))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": UUID("d9428888-122b-41e1-b85c-61e18e2b8f7d")}, "is not a UUIDv7"),
        ({"cached_tokens": 18}, "cached_tokens 18 exceed input_tokens 17"),
        ({"started_at": NOW - 401 * DAY}, "more than 400 days ago"),
        ({"started_at": NOW + timedelta(minutes=5, seconds=1)}, "more than 5 minutes ahead"),
        ({"id": first_id(NOW - 2 * DAY)}, "was not made within a day of started_at"),
        ({"id": UUID(int=first_id(NOW).int | 0xFFF << 116)}, "was not made within a day of started_at"),
        ({"ended_at": datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-DAY / 2))}, "ended_at .* or ahead"),
        ({"time": datetime(1, 1, 1, tzinfo=timezone(DAY / 2))}, "time .* before started_at"),
        ({"model": "m\0"}, "model is longer than 256 characters or contains NUL"),
        ({"region": "r" * 257}, "region is longer"),
        ({"input_tokens": 10**9 + 1}, "`int` <= 1000000000"),
        ({"output_tokens": -1}, "`int` >= 0"),
    ],
)
def test_absurd_usage_is_refused_with_a_reason(record: Any, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unprocessable, match=reason):
        intake.read(bus.encode(record(**fields)), NOW)


def test_sums_cover_whole_hours() -> None:
    at = datetime(2026, 2, 1, 10, tzinfo=UTC)
    assert hours("2026-02-01T10:10:00Z", "2026-02-01T10:10:00Z") == (at, at + timedelta(hours=1))
    assert hours("2026-02-01T10:00:00Z", "2026-02-01T10:00:00Z") == (at, at)
    assert hours(None, "9999-12-31T23:59:00Z")[1] == datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert moment("2026-02-01T12:00:00 02:00", "from") == moment("2026-02-01T10:00", "from") == at
    assert moment("2026-02-01", "from") == at - timedelta(hours=10)


def test_months_meet_without_gap_or_overlap() -> None:
    first, second = datetime(2026, 12, 31, 23, 59, 59, 999_000, UTC), datetime(2027, 1, 1, tzinfo=UTC)
    last = UUID(int=first_id(second).int - 1)
    december, january = partitions_of([first_id(second), first_id(first), last])
    assert (december.name, january.name) == ("usage_2026_12", "usage_2027_01")
    assert december.next == january.first == first_id(second)
    assert december.first <= first_id(first) < december.next
