"""Billing meters: events once an identifier a day, within their window of time, summed after a while."""

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from stripe_double.shapes import Refused

DAY = 86_400
OLDEST = 35 * DAY
AHEAD = 300


class MeterEvent(msgspec.Struct, frozen=True):
    event_name: str
    customer: str
    value: Decimal
    timestamp: int
    identifier: str
    accepted_at: float


class Meters:
    def __init__(self, delay: float) -> None:
        """`delay` in seconds from when an event is accepted until sums have it."""
        self.delay = delay
        self.window = DAY
        self.events: list[MeterEvent] = []
        self._known: dict[str, float] = {}

    def accept(self, params: dict[str, Any], customers: dict[str, Any], now: float) -> MeterEvent:
        identifier = params["identifier"]
        if len(identifier) > 100:
            raise Refused("Invalid string: identifier; must be at most 100 characters", param="identifier")
        timestamp = int(params.get("timestamp", now))
        if timestamp < now - OLDEST:
            raise Refused("The timestamp must be within the past 35 calendar days.", param="timestamp")
        if timestamp > now + AHEAD:
            raise Refused("The timestamp must not be more than 5 minutes in the future.", param="timestamp")
        known = self._known.get(identifier)
        if known is not None and now - known < self.window:
            raise Refused(f"An event already exists with identifier {identifier}.")
        payload = params["payload"]
        customer = payload.get("stripe_customer_id", "")
        if customer not in customers:
            raise Refused(f"No such customer: '{customer}'", code="resource_missing", param="customer")
        try:
            value = Decimal(payload["value"])
        except (InvalidOperation, KeyError):
            raise Refused("Invalid value", param="payload[value]") from None
        if value < 0 or value != value.to_integral_value():
            raise Refused("The value must be a whole number and not negative", param="payload[value]")
        event = MeterEvent(params["event_name"], customer, value, timestamp, identifier, now)
        self._known[identifier] = now
        self.events.append(event)
        return event

    def total(self, customer: str | None = None, name: str | None = None) -> Decimal:
        """Everything that was accepted, aggregated or not."""
        return sum(
            (
                event.value
                for event in self.events
                if customer in (None, event.customer) and name in (None, event.event_name)
            ),
            Decimal(0),
        )

    def sums(self, name: str, customer: str, start: int, end: int, window: int, now: float) -> dict[int, Decimal]:
        """Start of each window that has events → their sum."""
        found: dict[int, Decimal] = {}
        for event in self.events:
            visible = event.accepted_at + self.delay <= now
            if visible and (event.event_name, event.customer) == (name, customer) and start <= event.timestamp < end:
                at = event.timestamp - (event.timestamp - start) % window
                found[at] = found.get(at, Decimal(0)) + event.value
        return found
