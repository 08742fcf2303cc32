"""What a tenant's account gives reason to tell: from its state, so that a crash forgets nothing. Pure."""

from uuid import UUID

from billing import notice
from billing.account_store import Sheet
from billing.notice import Notice
from billing.statement import month_of
from common.money import usd

LOW = 20
"""Per cent left of the credits that are live."""


def due(tenant_id: UUID, sheet: Sheet) -> list[Notice]:
    """Each by a key of its own, so that telling it again changes nothing."""
    month = month_of(sheet.now)
    found: list[Notice] = []
    spent = sum(sheet.keys.values())
    watched = [("the tenant", spent, sheet.monthly or 0)]
    watched += [(f"the API key {key}", sheet.keys.get(key, 0), limit) for key, limit in sheet.key_budgets.items()]
    for whose, of, limit in watched:
        if percent := notice.threshold(of, limit):
            found.append(
                Notice(
                    topic="budget.threshold",
                    key=f"budget:{tenant_id}:{whose}:{month}:{limit}:{percent}",
                    tenant_id=tenant_id,
                    facts={
                        "percent": percent,
                        "whose": whose,
                        "month": month,
                        "spent_usd": usd(of),
                        "limit_usd": usd(limit),
                    },
                )
            )
    live = [grant for grant in sheet.grants if grant.first <= sheet.now < grant.end]
    total, left = sum(grant.amount for grant in live), sheet.statement.credit_left
    if live and left * 100 <= total * LOW:
        level = 0 if left == 0 else LOW
        found.append(
            Notice(
                topic="credit.low",
                key=f"credit:{tenant_id}:{max(grant.id for grant in live)}:{level}",
                tenant_id=tenant_id,
                facts={"left_usd": usd(left), "granted_usd": usd(total)},
            )
        )
    return found
