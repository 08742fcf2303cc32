"""`rpc.billing`: budgets, credits and balances, and what gateways ask of the ledger."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from billing import account_store, money
from billing.account_store import Sheet
from billing.entitlement import hour_after, in_force
from billing.queries import moment, tenant_of
from billing.routes import Admin
from billing.statement import Grant, Item, Kind, burn_order, month_of
from common.budgets import RECORDED, Asked, Recorded
from common.db import transaction
from common.ids import new_id
from common.plans import Plan
from common.rpc import Call, Router


class NewBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    monthly_usd: Decimal | None
    """None removes the budget."""
    hard: bool = True


class NewCredit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    amount_usd: Decimal
    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
    expires_at: str | None = None
    """Rounded up to a whole hour: usage is counted by the hour."""
    kind: Kind = "paid"


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    kind: Kind
    amount_usd: str
    remaining_usd: str
    """What usage has not burned; lost once it has expired."""
    reason: str
    granted_at: datetime
    expires_at: datetime | None
    expired: bool


class Credits(msgspec.Struct, frozen=True):
    credits: list[Credit]
    """In the order in which they burn."""


class BalanceLine(msgspec.Struct, frozen=True, kw_only=True):
    item: Item
    grant_id: UUID | None
    amount_usd: str


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Exact dollars; None where there is no budget, or no credit was ever granted."""

    month: str
    plan: Plan
    spent_usd: str
    """This month's usage by its prices, whatever pays for it."""
    due_usd: str
    """Of this month, so far: usage and commitment, less what capacity, allowance and credits pay."""
    monthly_usd: str | None
    hard: bool
    remaining_usd: str | None
    credit_usd: str | None
    """What is left of credits that have not expired."""
    free_usd: str
    """What is left of this month's allowance."""
    lines: list[BalanceLine]
    """What `due_usd` is made of."""


def add(router: Router[Admin]) -> None:
    router.route("PUT", "/admin/tenants/{tenant}/budget")(put_budget)
    router.route("POST", "/admin/tenants/{tenant}/credits", status=201)(post_credit)
    router.route("GET", "/admin/tenants/{tenant}/credits")(get_credits)
    router.route("GET", "/admin/tenants/{tenant}/balance")(get_balance)
    router.route("POST", RECORDED)(post_recorded)


async def put_budget(admin: Admin, call: Call, tenant: str) -> Balance:
    asked = call.parse(NewBudget)
    monthly = None if asked.monthly_usd is None else money.amount(asked.monthly_usd, "monthly_usd")
    id = tenant_of(tenant)
    async with transaction(admin.pool) as connection:
        await account_store.put_budget(connection, id, monthly, asked.hard, call.actor)
    admin.accounts.change(id)
    return await _balance(admin, id)


async def post_credit(admin: Admin, call: Call, tenant: str) -> Balance:
    asked = call.parse(NewCredit)
    expires_at = hour_after(moment(asked.expires_at, "expires_at")) if asked.expires_at else None
    amount = money.amount(asked.amount_usd, "amount_usd", least=1)
    id = tenant_of(tenant)
    async with transaction(admin.pool) as connection:
        await account_store.add_credit(
            connection,
            id=new_id(),
            tenant_id=id,
            amount=amount,
            reason=asked.reason,
            expires_at=expires_at,
            by=call.actor,
            kind=asked.kind,
        )
    admin.accounts.change(id)
    return await _balance(admin, id)


async def get_credits(admin: Admin, call: Call, tenant: str) -> Credits:
    sheet = await _sheet(admin, tenant_of(tenant))
    return Credits([_credit(grant, sheet) for grant in sorted(sheet.grants, key=burn_order)])


async def get_balance(admin: Admin, call: Call, tenant: str) -> Balance:
    return await _balance(admin, tenant_of(tenant))


async def post_recorded(admin: Admin, call: Call) -> Recorded:
    asked = call.parse(Asked)
    return await admin.accounts.recorded(asked.tenant_id, asked.ids, asked.key_budgets)


async def _sheet(admin: Admin, tenant_id: UUID) -> Sheet:
    async with transaction(admin.pool) as connection:
        return await account_store.sheet(connection, tenant_id, ())


async def _balance(admin: Admin, tenant_id: UUID) -> Balance:
    sheet = await _sheet(admin, tenant_id)
    month, spent = month_of(sheet.now), sum(sheet.keys.values())
    return Balance(
        month=month,
        plan=in_force(sheet.terms, sheet.now).plan,
        spent_usd=money.usd(spent),
        due_usd=money.usd(sheet.statement.due.get(month, 0)),
        monthly_usd=None if sheet.monthly is None else money.usd(sheet.monthly),
        hard=sheet.monthly is not None and sheet.hard,
        remaining_usd=None if sheet.monthly is None else money.usd(sheet.monthly - spent),
        credit_usd=money.usd(sheet.statement.credit_left) if sheet.grants else None,
        free_usd=money.usd(sheet.statement.free_left),
        lines=[
            BalanceLine(item=line.item, grant_id=line.grant_id, amount_usd=money.usd(line.amount))
            for line in sheet.statement.lines
            if line.month == month
        ],
    )


def _credit(grant: Grant, sheet: Sheet) -> Credit:
    return Credit(
        id=grant.id,
        kind=grant.kind,
        amount_usd=money.usd(grant.amount),
        remaining_usd=money.usd(grant.amount - sheet.statement.burned.get(grant.id, 0)),
        reason=grant.reason,
        granted_at=grant.granted_at,
        expires_at=grant.expires_at,
        expired=grant.end <= sheet.now,
    )
