"""Owed to metered: nothing is lost or invented, whatever comes in what order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.batches import LONGEST_WAIT, Settlement, Uncertain, dated, settle, split, wait

HOUR = datetime(2026, 11, 10, 7, tzinfo=UTC)
OWED = st.dictionaries(
    st.integers(0, 50).map(lambda n: HOUR + timedelta(hours=n)), st.integers(-(10**8), 10**8), max_size=20
)


@given(owed=OWED, carried=st.integers(-(10**9), 10**6 - 1))
def test_micro_dollars_and_what_is_carried_sum_to_what_is_owed(owed: dict[datetime, int], carried: int) -> None:
    micros, rest = split(owed, carried)
    assert sum(micros.values()) * 10**6 + rest == sum(owed.values()) + carried
    assert all(micro > 0 for micro in micros.values())
    assert rest < 10**6
    assert set(micros) <= set(owed)


@given(parts=st.lists(OWED, max_size=8))
def test_however_it_is_gathered_the_sum_is_the_same(parts: list[dict[datetime, int]]) -> None:
    carried = told = 0
    for part in parts:
        micros, carried = split(part, carried)
        told += sum(micros.values())
    assert told * 10**6 + carried == sum(sum(part.values()) for part in parts)


def test_a_correction_is_carried_until_usage_outweighs_it() -> None:
    micros, carried = split({HOUR: -5_000_000}, 300_000)
    assert (micros, carried) == ({}, -4_700_000)
    assert split({HOUR: 4_700_000}, carried) == ({}, 0)
    assert split({HOUR: 6_900_000}, carried) == ({HOUR: 2}, 200_000)


@pytest.mark.parametrize(
    ("hour", "starts_at", "now", "told"),
    [
        # as it was
        ("2026-11-10T07:00", "2026-01-01T00:00", "2026-11-10T09:30", "2026-11-10T07:00"),
        # in the hour in which the subscription began, and before it
        ("2026-11-10T07:00", "2026-11-10T07:20", "2026-11-10T07:40", "2026-11-10T07:20"),
        ("2026-11-01T07:00", "2026-11-10T07:20", "2026-11-10T07:40", "2026-11-10T07:20"),
        # never in the future
        ("2026-11-10T07:00", "2026-11-10T07:20", "2026-11-10T07:10", "2026-11-10T07:10"),
        # the last month while its invoice is a draft, and this one after it
        ("2026-10-31T23:00", "2026-01-01T00:00", "2026-11-01T00:44", "2026-10-31T23:00"),
        ("2026-10-31T23:00", "2026-01-01T00:00", "2026-11-01T00:46", "2026-11-01T00:00"),
        ("2026-08-01T23:00", "2026-01-01T00:00", "2026-11-01T00:10", "2026-10-01T00:00"),
        ("2025-12-31T23:00", "2025-01-01T00:00", "2026-01-01T00:10", "2025-12-31T23:00"),
        # no older than Stripe takes
        ("2026-12-01T00:00", "2026-01-01T00:00", "2027-01-01T00:30", "2026-12-01T00:00"),
    ],
)
def test_the_time_told_is_one_that_an_invoice_has(hour: str, starts_at: str, now: str, told: str) -> None:
    at = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (hour, starts_at, now, told)]
    assert dated(*at[:3]) == at[3]


@given(st.integers(0, 10**6), st.integers(0, 3000))
def test_the_time_told_is_always_within_the_window(hours_ago: int, days: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days, minutes=hours_ago % 1440)
    at = dated(now - timedelta(hours=min(hours_ago, 9000)), now - timedelta(days=400), now)
    assert now - timedelta(days=35) < at <= now


SENT = (Uncertain(1, 10), Uncertain(2, 5))


@pytest.mark.parametrize(
    ("known", "told", "settlement"),
    [
        (100, 115, Settlement({1: 10, 2: 5}, 0)),
        (100, 100, Settlement({1: 0, 2: 0}, 15)),
        (100, 110, Settlement({1: 10, 2: 0}, 5)),
        (100, 105, Settlement({1: 5, 2: 0}, 10)),
        (100, 130, Settlement({1: 10, 2: 5}, 0)),  # too much: named by reconciliation, not taken back here
        (100, 99, None),
    ],
)
def test_what_stripe_has_says_what_was_lost(known: int, told: int, settlement: Settlement | None) -> None:
    assert settle(SENT, known, told) == settlement


def test_waits_grow_to_a_bound_and_honour_what_stripe_says() -> None:
    assert wait(1, None, 0.0) == timedelta(seconds=0.25)
    assert wait(1, None, 1.0) == timedelta(seconds=0.5)
    assert wait(10**6, None, 1.0) == timedelta(seconds=LONGEST_WAIT)
    assert wait(1, 30, 0.0) == timedelta(seconds=30)
