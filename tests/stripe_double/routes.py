"""What each path of Stripe's API takes and does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import stripe

from stripe_double import form, objects
from stripe_double.objects import Object
from stripe_double.shapes import Refused

if TYPE_CHECKING:
    from stripe_double.double import Double

P = stripe.params
Handler = Callable[..., Object]
PAGE = 10


def paged(found: list[Object], params: form.Params, url: str) -> Object:
    ids = [made["id"] for made in found]
    first = ids.index(params["starting_after"]) + 1 if "starting_after" in params else 0
    limit = int(params.get("limit", PAGE))
    return objects.listed(found[first : first + limit], url, len(found) > first + limit)


def routes(double: Double) -> list[tuple[str, list[str], Any, Handler]]:
    def accept_meter_event(params: form.Params) -> Object:
        params.setdefault("identifier", double.new_id("idmp"))
        made = double.meters.accept(params, double.of("customer"), double.now)
        return {
            "object": "billing.meter_event",
            "created": int(double.now),
            "event_name": made.event_name,
            "identifier": made.identifier,
            "payload": params["payload"],
            "timestamp": made.timestamp,
            "livemode": False,
        }

    def create_meter(params: form.Params) -> Object:
        names = [meter["event_name"] for meter in double.of("meter").values() if meter["status"] == "active"]
        if params["event_name"] in names:
            raise Refused("There is already an active meter with this event name.", code="archived_meter_attached")
        return double.make("meter", "mtr", objects.meter, params)

    def summaries(params: form.Params, id: str) -> Object:
        meter = double.one("meter", id)
        start, end = int(params["start_time"]), int(params["end_time"])
        window = {"hour": 3600, "day": 86_400}.get(params.get("value_grouping_window", ""), end - start)
        if start % 60 or end % 60 or (window in (3600, 86_400) and (start % window or end % window)):
            raise Refused("start_time and end_time must be aligned", param="start_time")
        sums = double.meters.sums(meter["event_name"], params["customer"], start, end, window, double.now)
        found = [
            {
                "id": f"mtrusg_{id}_{at}",
                "object": "billing.meter_event_summary",
                "aggregated_value": float(value),
                "start_time": at,
                "end_time": at + window,
                "meter": id,
                "livemode": False,
            }
            for at, value in sorted(sums.items(), reverse=True)
        ]
        return paged(found, params, f"/v1/billing/meters/{id}/event_summaries")

    def create_price(params: form.Params) -> Object:
        keys = [price["lookup_key"] for price in double.of("price").values()]
        if params.get("lookup_key") and params["lookup_key"] in keys:
            raise Refused("A price already uses that lookup key.", param="lookup_key")
        double.one("product", params["product"])
        return double.make("price", "price", objects.price, params)

    def create_subscription(params: form.Params) -> Object:
        double.one("customer", params["customer"])
        return double.make("subscription", "sub", objects.subscription, params, double.of("price"))

    def create_invoice(params: form.Params) -> Object:
        made = objects.invoice(double.new_id("in"), params["customer"], "", [], int(double.now))
        return double.of("invoice").setdefault(made["id"], made)

    def finalize(params: form.Params, id: str) -> Object:
        made = double.one("invoice", id)
        if made["status"] != "draft":
            raise Refused("This invoice is already finalized.", code="invoice_not_editable")
        made["status"] = "open" if made["amount_due"] else "paid"
        return made

    def update_customer(params: form.Params, id: str) -> Object:
        made = double.one("customer", id)
        made.update(params)
        return made

    def create_grant(params: form.Params) -> Object:
        double.one("customer", params["customer"])
        return double.make("credit_grant", "credgr", objects.credit_grant, params)

    def is_of(params: form.Params, *names: str) -> Callable[[Object], bool]:
        return lambda made: all(made[name] == params[name] for name in names if name in params)

    billing, b = P.billing, "/v1/billing"
    table: list[tuple[str, str, Any, Handler]] = [
        (
            "POST",
            "/v1/customers",
            P.CustomerCreateParams,
            lambda params: double.make("customer", "cus", objects.customer, params),
        ),
        (
            "GET",
            "/v1/customers",
            P.CustomerListParams,
            lambda params: double.page("customer", params, "/v1/customers", is_of(params, "email")),
        ),
        ("GET", "/v1/customers/{}", P.CustomerRetrieveParams, lambda params, id: double.one("customer", id)),
        ("POST", "/v1/customers/{}", P.CustomerUpdateParams, update_customer),
        (
            "POST",
            "/v1/products",
            P.ProductCreateParams,
            lambda params: double.make("product", "prod", objects.product, params),
        ),
        ("GET", "/v1/products/{}", P.ProductRetrieveParams, lambda params, id: double.one("product", id)),
        ("POST", "/v1/prices", P.PriceCreateParams, create_price),
        (
            "GET",
            "/v1/prices",
            P.PriceListParams,
            lambda params: double.page(
                "price", params, "/v1/prices", lambda made: made["lookup_key"] in params.get("lookup_keys", [None])
            ),
        ),
        ("POST", "/v1/subscriptions", P.SubscriptionCreateParams, create_subscription),
        (
            "GET",
            "/v1/subscriptions",
            P.SubscriptionListParams,
            lambda params: double.page("subscription", params, "/v1/subscriptions", is_of(params, "customer")),
        ),
        ("POST", "/v1/invoices", P.InvoiceCreateParams, create_invoice),
        (
            "GET",
            "/v1/invoices",
            P.InvoiceListParams,
            lambda params: double.page("invoice", params, "/v1/invoices", is_of(params, "customer", "status")),
        ),
        ("POST", "/v1/invoices/{}/finalize", P.InvoiceFinalizeInvoiceParams, finalize),
        ("POST", f"{b}/meters", billing.MeterCreateParams, create_meter),
        (
            "GET",
            f"{b}/meters",
            billing.MeterListParams,
            lambda params: double.page("meter", params, f"{b}/meters", is_of(params, "status")),
        ),
        ("POST", f"{b}/meter_events", billing.MeterEventCreateParams, accept_meter_event),
        ("GET", f"{b}/meters/{{}}/event_summaries", billing.MeterEventSummaryListParams, summaries),
        ("POST", f"{b}/credit_grants", billing.CreditGrantCreateParams, create_grant),
        (
            "GET",
            f"{b}/credit_grants",
            billing.CreditGrantListParams,
            lambda params: double.page("credit_grant", params, f"{b}/credit_grants", is_of(params, "customer")),
        ),
        (
            "POST",
            "/v1/checkout/sessions",
            P.checkout.SessionCreateParams,
            lambda params: double.make("checkout", "cs", objects.checkout_session, params, double.url),
        ),
        (
            "POST",
            "/v1/billing_portal/sessions",
            P.billing_portal.SessionCreateParams,
            lambda params: double.make("portal", "bps", objects.portal_session, params, double.url),
        ),
        (
            "POST",
            "/v1/webhook_endpoints",
            P.WebhookEndpointCreateParams,
            lambda params: double.make("webhook_endpoint", "we", objects.webhook_endpoint, params),
        ),
    ]
    return [(method, path.split("/"), kind, handler) for method, path, kind, handler in table]
