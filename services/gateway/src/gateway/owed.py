"""What the gateway has billing do when a tenant is made or changed: its plan and its budget, which billing owns."""

from decimal import Decimal
from uuid import UUID

import msgspec

from common.bus import Bus
from common.errors import ApiError, ErrorReply
from common.plans import Plan
from common.rpc import Call, forward
from gateway.audit import Author


class BudgetChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    monthly_usd: Decimal | None
    """None removes the budget."""
    hard: bool = True


class Owed:
    """Doing either again changes nothing. Raises Unavailable without billing, and what billing refuses."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put_plan(self, by: Author, tenant_id: UUID, plan: Plan) -> None:
        await self._put(by, f"/admin/tenants/{tenant_id}/plan", {"plan": plan})

    async def put_budget(self, by: Author, tenant_id: UUID, budget: BudgetChange) -> None:
        await self._put(by, f"/admin/tenants/{tenant_id}/budget", budget)

    async def _put(self, by: Author, path: str, body: object) -> None:
        raw = msgspec.Raw(msgspec.json.encode(body))
        call = Call(method="PUT", path=path, body=raw, actor=by.actor, request_id=by.request_id)
        reply = await forward(self._bus, "billing", call)
        if reply.status >= 400:
            told = msgspec.json.decode(reply.body, type=ErrorReply).error
            error = ApiError(told.message, param=told.param, code=told.code)
            error.status, error.type = reply.status, told.type
            raise error
