"""`rpc.billing`: budgets, credits and balances, and what gateways ask of the ledger."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from billing import account_store, money
from billing.queries import moment
from billing.routes import Admin
from common.budgets import RECORDED, Asked, Recorded
from common.db import transaction
from common.errors import NotFound
from common.ids import new_id
from common.rpc import Call, Router


class NewBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    monthly_usd: Decimal | None
    """None removes the budget."""
    hard: bool = True


class NewCredit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    amount_usd: Decimal
    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
    expires_at: str | None = None


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Exact dollars; None where there is no budget, or no credit was ever granted."""

    month: str
    spent_usd: str
    monthly_usd: str | None
    hard: bool
    remaining_usd: str | None
    credit_usd: str | None


def add(router: Router[Admin]) -> None:
    router.route("PUT", "/admin/tenants/{tenant}/budget")(put_budget)
    router.route("POST", "/admin/tenants/{tenant}/credits", status=201)(post_credit)
    router.route("GET", "/admin/tenants/{tenant}/balance")(get_balance)
    router.route("POST", RECORDED)(post_recorded)


async def put_budget(admin: Admin, call: Call, tenant: str) -> Balance:
    asked = call.parse(NewBudget)
    monthly = None if asked.monthly_usd is None else money.amount(asked.monthly_usd, "monthly_usd")
    id = _id(tenant)
    async with transaction(admin.pool) as connection:
        await account_store.put_budget(connection, id, monthly, asked.hard, call.actor)
    admin.accounts.change(id)
    return await _balance(admin, id)


async def post_credit(admin: Admin, call: Call, tenant: str) -> Balance:
    asked = call.parse(NewCredit)
    expires_at: datetime | None = moment(asked.expires_at, "expires_at") if asked.expires_at else None
    amount = money.amount(asked.amount_usd, "amount_usd", least=1)
    id = _id(tenant)
    async with transaction(admin.pool) as connection:
        await account_store.add_credit(
            connection,
            id=new_id(),
            tenant_id=id,
            amount=amount,
            reason=asked.reason,
            expires_at=expires_at,
            by=call.actor,
        )
    admin.accounts.change(id)
    return await _balance(admin, id)


async def get_balance(admin: Admin, call: Call, tenant: str) -> Balance:
    return await _balance(admin, _id(tenant))


async def post_recorded(admin: Admin, call: Call) -> Recorded:
    asked = call.parse(Asked)
    return await admin.accounts.recorded(asked.tenant_id, asked.ids)


async def _balance(admin: Admin, tenant_id: UUID) -> Balance:
    account = (await admin.accounts.recorded(tenant_id, ())).account
    budgets = {budget.name: budget for budget in account.budgets}
    month, credit = budgets.get("tenant"), budgets.get("credit")
    return Balance(
        month=account.month,
        spent_usd=money.usd(sum(account.keys.values())),
        monthly_usd=money.usd(month.limit) if month else None,
        hard=bool(month and month.hard),
        remaining_usd=money.usd(month.limit - month.spent) if month else None,
        credit_usd=money.usd(credit.limit - credit.spent) if credit else None,
    )


def _id(tenant: str) -> UUID:
    try:
        return UUID(tenant)
    except ValueError:
        raise NotFound(f"no tenant {tenant}", param="id") from None
