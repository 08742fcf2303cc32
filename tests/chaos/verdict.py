"""The ledger beside what engines produced and clients received: what was lost, billed twice or not at all. Pure."""

import msgspec


class Sent(msgspec.Struct, kw_only=True):
    """One request as its client saw it."""

    request_id: str = ""
    """Empty when no head came back."""
    received: int = 0
    """Tokens, by the last usage that it was told."""
    ended: str = "unanswered"
    """completed, hung_up, failed (an error, in the stream or instead of it), unanswered."""


class Produced(msgspec.Struct, frozen=True):
    """What one engine knows of a request: tokens that it handed to the socket."""

    request_id: str
    prompt: int
    delivered: int


class Billed(msgspec.Struct, frozen=True):
    """A row of the ledger."""

    id: str
    outcome: str
    input_tokens: int
    output_tokens: int
    cost: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    sent: int
    answered: int
    billed: int
    lost: int
    """Requests of which a client received a token and the ledger knows nothing."""
    twice: int
    """Requests billed for more than the engines delivered, or twice."""
    unbilled_tokens: int
    """Received and not billed, on gateways that were killed."""
    unexplained_tokens: int
    """Received and not billed, though the gateway lived to settle."""
    views_apart: int
    """Pico-dollars by which a view (rollup, outbox) differs from the ledger."""
    leaked_slots: int
    worst_unbilled: int
    """Tokens of the worst single request."""

    @property
    def good(self) -> bool:
        wrong = (self.lost, self.twice, self.unexplained_tokens, self.views_apart, self.leaked_slots)
        return not any(wrong)


def judge(
    sent: list[Sent],
    produced: list[Produced],
    billed: list[Billed],
    *,
    rollup: int,
    outbox: int,
    leaked: int,
) -> Verdict:
    rows = {row.id: row for row in billed}
    most: dict[str, int] = {}
    for record in produced:  # a stream that went on elsewhere was delivered by several engines
        most[record.request_id] = most.get(record.request_id, 0) + record.delivered
    lost = twice = unbilled = unexplained = worst = 0
    for request in sent:
        row = rows.get(request.request_id)
        if row is None:
            lost += request.received > 0
            continue
        missing = max(request.received - row.output_tokens, 0)
        if row.outcome == "gateway_lost":
            unbilled += missing
            worst = max(worst, missing)
        else:
            unexplained += missing
    for row in billed:
        twice += row.output_tokens > most.get(row.id, 0)
    total = sum(row.cost for row in billed)
    return Verdict(
        sent=len(sent),
        answered=sum(request.ended in ("completed", "hung_up") for request in sent),
        billed=len(billed),
        lost=lost,
        twice=twice + len(billed) - len(rows),
        unbilled_tokens=unbilled,
        unexplained_tokens=unexplained,
        views_apart=abs(total - rollup) + abs(total - outbox),
        leaked_slots=leaked,
        worst_unbilled=worst,
    )
