"""`rpc.billing`: invoices, for a program, a spreadsheet or a person."""

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from billing import invoice_pages, invoices, store
from billing.invoicing import Invoice
from billing.queries import month
from billing.routes import Admin
from common.db import transaction
from common.errors import InvalidRequest
from common.rpc import Call, Document, Router, fitting

END = "2099-12"


class InvoicesQuery(msgspec.Struct, frozen=True):
    tenant_id: UUID
    month: str | None = None
    format: Literal["json", "html", "csv"] = "json"
    cursor: str = END
    limit: Annotated[int, Meta(ge=1, le=120)] = 12


class Invoices(msgspec.Struct, frozen=True):
    """The newest first."""

    invoices: Sequence[Invoice]
    next_cursor: str | None


def add(router: Router[Admin]) -> None:
    router.route("GET", "/admin/invoices")(get_invoices)


async def get_invoices(admin: Admin, call: Call) -> Invoices | Document:
    """A page or a table is of one month."""
    asked = call.parse_query(InvoicesQuery)
    async with transaction(admin.pool) as connection:
        now = await store.now(connection)
    if asked.month is None:
        if asked.format != "json":
            raise InvalidRequest(f"format {asked.format} is of one month: name it", param="month")
        found = await invoices.of_tenant(admin.pool, asked.tenant_id, month(asked.cursor, "cursor"), asked.limit, now)
        shown = fitting(found)
        more = len(found) == asked.limit or len(shown) < len(found)
        return Invoices(shown, shown[-1].month if more else None)
    invoice = await invoices.of_month(admin.pool, asked.tenant_id, month(asked.month, "month"), now)
    if asked.format == "html":
        return Document("text/html; charset=utf-8", invoice_pages.html(invoice))
    if asked.format == "csv":
        return Document("text/csv; charset=utf-8", invoice_pages.csv_of(invoice), f"invoice-{invoice.number}.csv")
    return Invoices([invoice], None)
