"""Stripe's objects with the fields that anybody here reads. Pure."""

from typing import Any

Object = dict[str, Any]  # Any: Stripe's JSON


def customer(id: str, params: Object, now: int) -> Object:
    return {
        "id": id,
        "object": "customer",
        "created": now,
        "email": params.get("email"),
        "name": params.get("name"),
        "metadata": params.get("metadata", {}),
        "livemode": False,
    }


def product(id: str, params: Object, now: int) -> Object:
    return {
        "id": params.get("id", id),
        "object": "product",
        "active": True,
        "created": now,
        "name": params["name"],
        "metadata": params.get("metadata", {}),
        "livemode": False,
    }


def price(id: str, params: Object, now: int) -> Object:
    recurring = params.get("recurring")
    return {
        "id": id,
        "object": "price",
        "active": True,
        "created": now,
        "currency": params["currency"],
        "lookup_key": params.get("lookup_key"),
        "product": params["product"],
        "recurring": {
            "interval": recurring["interval"],
            "interval_count": 1,
            "meter": recurring.get("meter"),
            "usage_type": recurring.get("usage_type", "licensed"),
        }
        if recurring
        else None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount_decimal": params.get("unit_amount_decimal") or params.get("unit_amount"),
        "livemode": False,
    }


def subscription(id: str, params: Object, now: int, prices: dict[str, Object]) -> Object:
    items = [
        {
            "id": f"si_{id}_{index}",
            "object": "subscription_item",
            "created": now,
            "subscription": id,
            "price": prices[item["price"]],
            "metadata": {},
        }
        for index, item in enumerate(params["items"])
    ]
    return {
        "id": id,
        "object": "subscription",
        "created": now,
        "start_date": now,
        "billing_cycle_anchor": int(params.get("billing_cycle_anchor", now)),
        "customer": params["customer"],
        "status": "active",
        "items": listed(items, f"/v1/subscription_items?subscription={id}"),
        "metadata": params.get("metadata", {}),
        "livemode": False,
    }


def invoice(id: str, customer: str, subscription: str, lines: list[Object], now: int) -> Object:
    total = sum(line["amount"] for line in lines)
    return {
        "id": id,
        "object": "invoice",
        "created": now,
        "customer": customer,
        "currency": "usd",
        "status": "draft",
        "attempt_count": 0,
        "attempted": False,
        "amount_due": total,
        "amount_paid": 0,
        "amount_remaining": total,
        "total": total,
        "lines": listed(lines, f"/v1/invoices/{id}/lines"),
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription}},
        "metadata": {},
        "livemode": False,
    }


def meter(id: str, params: Object, now: int) -> Object:
    return {
        "id": id,
        "object": "billing.meter",
        "created": now,
        "updated": now,
        "customer_mapping": params.get(
            "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
        ),
        "default_aggregation": params["default_aggregation"],
        "display_name": params["display_name"],
        "event_name": params["event_name"],
        "event_time_window": None,
        "status": "active",
        "value_settings": params.get("value_settings", {"event_payload_key": "value"}),
        "livemode": False,
    }


def credit_grant(id: str, params: Object, now: int) -> Object:
    monetary = params["amount"]["monetary"]
    return {
        "id": id,
        "object": "billing.credit_grant",
        "amount": {
            "type": "monetary",
            "monetary": {"currency": monetary["currency"], "value": int(monetary["value"])},
        },
        "applicability_config": params["applicability_config"],
        "category": params.get("category", "paid"),
        "created": now,
        "updated": now,
        "customer": params["customer"],
        "expires_at": int(params["expires_at"]) if "expires_at" in params else None,
        "metadata": params.get("metadata", {}),
        "name": params.get("name"),
        "voided_at": None,
        "livemode": False,
    }


def checkout_session(id: str, params: Object, now: int, url: str) -> Object:
    lines = params.get("line_items", [])
    total = sum(int(line["price_data"]["unit_amount"]) * int(line["quantity"]) for line in lines)
    return {
        "id": id,
        "object": "checkout.session",
        "created": now,
        "expires_at": now + 86_400,
        "customer": params.get("customer"),
        "mode": params["mode"],
        "amount_total": total if lines else None,
        "currency": params.get("currency", "usd"),
        "payment_status": "unpaid" if lines else "no_payment_required",
        "status": "open",
        "success_url": params.get("success_url"),
        "cancel_url": params.get("cancel_url"),
        "url": f"{url}/c/pay/{id}",
        "metadata": params.get("metadata", {}),
        "livemode": False,
    }


def portal_session(id: str, params: Object, now: int, url: str) -> Object:
    return {
        "id": id,
        "object": "billing_portal.session",
        "created": now,
        "configuration": "bpc_1",
        "customer": params["customer"],
        "return_url": params.get("return_url"),
        "url": f"{url}/p/session/{id}",
        "livemode": False,
    }


def webhook_endpoint(id: str, params: Object, now: int) -> Object:
    return {
        "id": id,
        "object": "webhook_endpoint",
        "created": now,
        "url": params["url"],
        "enabled_events": params["enabled_events"],
        "status": "enabled",
        "secret": f"whsec_{id}",
        "metadata": {},
        "livemode": False,
    }


def event(id: str, type: str, subject: Object, now: int) -> Object:
    return {
        "id": id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": now,
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type,
    }


def listed(found: list[Object], url: str, more: bool = False) -> Object:
    return {"object": "list", "data": found, "has_more": more, "url": url}
