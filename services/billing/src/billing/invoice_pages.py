"""An invoice for a person, as a page to print, and for a machine, as CSV. Pure."""

import csv
import io
from html import escape
from typing import Literal, TypeAlias

import msgspec

from billing.invoicing import Invoice

KINDS = {"input": "input tokens", "cached_input": "cached input tokens", "output": "output tokens"}
STATUSES = {
    "open": "The month is not over: what is shown is so far.",
    "provisional": "The month is over; records that were delayed may still be added.",
    "final": "Final.",
}
STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2.5em auto; max-width: 60em; color: #111; padding: 0 1em }
h1 { font-size: 1.5em; margin: 0 } p { margin: .2em 0; color: #444 }
table { border-collapse: collapse; width: 100%; margin: 2em 0 }
th, td { text-align: left; padding: .35em .6em; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.m { overflow-wrap: anywhere }
tfoot td { border-bottom: 0; font-weight: 600 } tfoot tr:last-child td { border-top: 2px solid #111; font-size: 1.15em }
@page { margin: 18mm } @media print { body { margin: 0; max-width: none } tr { break-inside: avoid } }
"""
FIELDS = ("number", "month", "status", "type", "model", "region", "kind", "description", "requests", "tokens",
          "usd_per_million", "amount_usd")  # fmt: skip


Format: TypeAlias = Literal["json", "html", "csv"]


def written(invoice: Invoice, format: Format) -> str:
    if format == "json":
        return msgspec.json.format(msgspec.json.encode(invoice), indent=2).decode() + "\n"
    return html(invoice) if format == "html" else csv_of(invoice)


def html(invoice: Invoice) -> str:
    """A whole document that loads nothing. All text of others is escaped."""
    rows = "".join(
        f'<tr><td class="m">{escape(line.model)}</td><td>{escape(line.region or "–")}</td><td>{KINDS[line.kind]}</td>'
        f'<td class="n">{line.requests:,}</td><td class="n">{line.tokens:,}</td>'
        f'<td class="n">{line.usd_per_million}</td><td class="n">{line.amount_usd}</td></tr>\n'
        for line in invoice.lines
    )
    adjustments = "".join(
        f'<tr><td colspan="6">{escape(one.description)}</td><td class="n">{one.amount_usd}</td></tr>\n'
        for one in invoice.adjustments
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Invoice {invoice.number}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><h1>Invoice {invoice.number}</h1>
<p>Month {invoice.month} (UTC), account {invoice.tenant_id}</p>
<p>{STATUSES[invoice.status]}</p>
<table><thead><tr><th>Model</th><th>Region</th><th>Kind</th><th class="n">Requests</th><th class="n">Tokens</th>
<th class="n">$ a million</th><th class="n">Amount, $</th></tr></thead>
<tbody>
{rows}</tbody>
<tfoot><tr><td colspan="6">Usage ({invoice.requests:,} requests)</td><td class="n">{invoice.usage_usd}</td></tr>
{adjustments}<tr><td colspan="6">Due</td><td class="n">{invoice.due_usd}</td></tr></tfoot></table>
<p>All amounts are exact; only what is due is rounded, to a cent.</p>
</body></html>
"""


def csv_of(invoice: Invoice) -> str:
    """A row a line, and one of what is due at the end; no cell is a formula to a spreadsheet."""
    out = io.StringIO()
    rows = csv.DictWriter(out, FIELDS, restval="", lineterminator="\r\n")
    rows.writeheader()
    head = {"number": invoice.number, "month": invoice.month, "status": invoice.status}
    for line in invoice.lines:
        rows.writerow({
            **head, "type": "usage", "model": _text(line.model), "region": _text(line.region), "kind": line.kind,
            "requests": line.requests, "tokens": line.tokens, "usd_per_million": line.usd_per_million,
            "amount_usd": line.amount_usd,
        })  # fmt: skip
    for one in invoice.adjustments:
        rows.writerow({
            **head, "type": "adjustment", "description": _text(one.description), "amount_usd": one.amount_usd,
        })  # fmt: skip
    rows.writerow({**head, "type": "due", "requests": invoice.requests, "amount_usd": invoice.due_usd})
    return out.getvalue()


def _text(text: str) -> str:
    """Spreadsheets calculate what begins with one of these, after blanks too."""
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@|%") or text[:1] in tuple("\t\r\n") else text
