"""What is owed: the burn order, hour by hour, and that no order or division of the same usage changes it."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.entitlement import HOUR, Assignment, Terms, Version, in_force, timeline
from billing.statement import Grant, Line, Statement, Used, boundaries, hourly_from, statement
from common.ids import new_id
from common.plans import Plan

START = datetime(2026, 11, 1, tzinfo=UTC)
EVER = datetime.min.replace(tzinfo=UTC)
PAYG = [Terms(effective_from=EVER)]
MONTH = "2026-11"


def used(hour: int, cost: int, **fields: Any) -> Used:
    return Used(hour=START + hour * HOUR, requests=1, cost=cost, **fields)


def grant(number: int, amount: int, kind: Any = "paid", at: float = 0, until: float | None = None) -> Grant:
    return Grant(
        id=UUID(int=number),
        kind=kind,
        amount=amount,
        granted_at=START + at * HOUR,
        expires_at=None if until is None else START + until * HOUR,
    )


def burned(found: Statement) -> dict[int, int]:
    return {id.int: amount for id, amount in found.burned.items()}


def test_free_then_promotional_then_paid_then_due() -> None:
    terms = [Terms(effective_from=EVER, free_monthly=10)]
    grants = [grant(1, 20), grant(2, 30, "promotional"), grant(3, 5, "promotional", until=100)]
    found = statement([used(1, 100)], terms, grants, START + 2 * HOUR)
    assert burned(found) == {3: 5, 2: 30, 1: 20}
    assert found.due == {MONTH: 35}
    assert [(line.item, line.amount) for line in found.lines] == [
        ("usage", 100), ("free", -10), ("promotional", -5), ("promotional", -30), ("paid", -20),
    ]  # fmt: skip
    assert (found.free_left, found.credit_left) == (0, 0)


def test_a_credit_pays_from_its_hour_to_that_of_its_end_whenever_records_arrive() -> None:
    usage = [used(1, 7), used(2, 11), used(3, 13), used(4, 17)]
    found = statement(usage, PAYG, [grant(1, 1000, at=2.5, until=3.5)], START + 5 * HOUR)
    assert burned(found) == {1: 11 + 13}
    assert found.due == {MONTH: 7 + 17}
    assert found.credit_left == 0, "what is left of an expired credit is lost"


def test_the_allowance_is_of_a_month() -> None:
    terms = [Terms(effective_from=EVER, free_monthly=10)]
    december = 30 * 24
    found = statement([used(0, 4), used(december, 12), used(december + 1, 1)], terms, [], START + december * HOUR)
    assert found.due == {MONTH: 0, "2026-12": 3}
    assert found.free_left == 0


@pytest.mark.parametrize(
    ("tokens", "cost", "due"),
    [
        (7200, 1000, 0),
        # half is over
        (14_400, 1000, 500),
        # what cannot be halved is the tenant's to pay
        (14_400, 1001, 501),
    ],
)
def test_capacity_covers_tokens_by_the_hour_and_the_rest_is_overage(tokens: int, cost: int, due: int) -> None:
    terms = [Terms(effective_from=EVER), Terms(effective_from=START, plan="committed", units=2, unit_hour=50)]
    usage = [used(0, cost, input_tokens=tokens - 100, output_tokens=100), used(1, 30, input_tokens=7000)]
    found = statement(usage, terms, [], START + 2 * HOUR)
    assert found.due == {MONTH: 2 * 2 * 50 + due}
    assert [line.unit_hours for line in found.lines if line.item == "commitment"] == [4]


def test_a_commitment_costs_without_usage_and_is_told_by_month() -> None:
    terms = [
        Terms(effective_from=EVER),
        Terms(effective_from=START + 24 * HOUR, plan="committed", units=3, unit_hour=2),
        Terms(effective_from=START + 31 * 24 * HOUR),
    ]
    found = statement([], terms, [], START + 40 * 24 * HOUR)
    assert found.due == {MONTH: 29 * 24 * 3 * 2, "2026-12": 24 * 3 * 2}
    assert statement([], terms, [], START + 24.5 * HOUR).due == {MONTH: 6}, "an hour that has begun counts"


def test_a_timeline_joins_plans_and_their_versions() -> None:
    def version(plan: Plan, at: int, free: int) -> Version:
        return Version(
            id=new_id(), plan=plan, free_monthly=free, unit_hour=0, effective_from=START + at * HOUR,
            created_at=START, created_by="t",
        )  # fmt: skip

    def assigned(plan: Plan, at: int) -> Assignment:
        return Assignment(
            id=new_id(), tenant_id=UUID(int=1), plan=plan, units=0, effective_from=START + at * HOUR,
            created_at=START, created_by="t",
        )  # fmt: skip

    found = timeline(
        [assigned("prepaid", 5), assigned("free", 5), assigned("pay_as_you_go", 9)],
        [version("free", 0, 3), version("free", 7, 4), version("prepaid", 6, 1)],
    )
    assert [(t.plan, t.free_monthly) for t in found] == [
        ("pay_as_you_go", 0), ("free", 3), ("free", 4), ("pay_as_you_go", 0),
    ]  # fmt: skip
    assert in_force(found, START + 8 * HOUR).free_monthly == 4


HOURS = st.integers(0, 24 * 40)
grants_of = st.lists(
    st.builds(
        grant,
        st.integers(1, 10**9),
        st.integers(1, 60),
        st.sampled_from(["paid", "promotional"]),
        st.floats(0, 900),
        st.one_of(st.none(), st.floats(0, 1000)),
    ),
    max_size=4,
    unique_by=lambda g: g.id,
)
usage_of = st.lists(st.builds(used, HOURS, st.integers(1, 40), input_tokens=st.integers(1, 9000)), max_size=12)
terms_of = st.lists(
    st.builds(
        lambda at, free, units: Terms(
            effective_from=START + at * HOUR, free_monthly=free, units=units, unit_hour=units
        ),
        HOURS,
        st.sampled_from([0, 15]),
        st.sampled_from([0, 0, 1]),
    ),
    max_size=3,
    unique_by=lambda t: t.effective_from,
).map(lambda found: PAYG + sorted(found, key=lambda t: t.effective_from))
UNTIL = START + 24 * 45 * HOUR


@given(usage_of, terms_of, grants_of, st.randoms(use_true_random=False))
def test_no_order_and_no_division_of_usage_changes_it(
    usage: list[Used], terms: list[Terms], grants: list[Grant], chance: random.Random
) -> None:
    once = statement(usage, terms, grants, UNTIL)
    parts = [
        Used(hour=u.hour, requests=r, input_tokens=t, cost=c)
        for u in usage
        for r, t, c in [(1, u.input_tokens // 2, u.cost - 3), (0, u.input_tokens - u.input_tokens // 2, 3)]
    ]
    chance.shuffle(parts)
    assert statement(parts, terms, chance.sample(grants, len(grants)), UNTIL) == once
    gross = sum(u.cost for u in usage)
    fees = sum(line.amount for line in once.lines if line.item == "commitment")
    covered = sum(-line.amount for line in once.lines if line.item in ("committed", "free"))
    assert sum(once.due.values()) == gross + fees - covered - sum(once.burned.values())
    assert all(0 <= once.burned.get(g.id, 0) <= g.amount for g in grants)


@given(usage_of, terms_of, grants_of)
def test_usage_may_be_summed_between_boundaries(usage: list[Used], terms: list[Terms], grants: list[Grant]) -> None:
    marks, hourly = boundaries(terms, grants, START, UNTIL), hourly_from(terms)
    summed = [
        Used(
            hour=u.hour if u.hour >= hourly else max(at for at in marks if at <= u.hour),
            requests=u.requests,
            input_tokens=u.input_tokens,
            cost=u.cost,
        )
        for u in usage
    ]
    once, again = statement(usage, terms, grants, UNTIL), statement(summed, terms, grants, UNTIL)
    assert (again.burned, again.due) == (once.burned, once.due)
    assert (again.free_left, again.credit_left) == (once.free_left, once.credit_left)


def test_what_is_left_is_told_of_now() -> None:
    terms = [Terms(effective_from=EVER, free_monthly=100)]
    grants = [grant(1, 50), grant(2, 50, at=10), grant(3, 50, until=2)]
    found = statement([used(1, 30)], terms, grants, START + 4 * HOUR + timedelta(minutes=1))
    assert (found.free_left, found.credit_left) == (70, 50)
    assert {line.month for line in found.lines if isinstance(line, Line)} == {MONTH}
