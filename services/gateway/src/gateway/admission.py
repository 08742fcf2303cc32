"""What a request needs to be let in: every inference route asks here, and nowhere else."""

from datetime import datetime

import msgspec

from common.budgets import Price
from common.errors import Unavailable
from common.leases import Layer
from gateway import limits
from gateway.body import Endpoint, Prepared
from gateway.budget import Budgets
from gateway.leases import Ask
from gateway.live import Caller
from gateway.nodes import Nodes
from gateway.prices import Prices

LIMIT_FIELDS: dict[Endpoint, str] = {
    "chat.completions": "max_tokens",
    "completions": "max_tokens",
    "responses": "max_output_tokens",
    "messages": "max_tokens",
}
"""Endpoints that generate, and how an engine is told how much."""


class Entry(msgspec.Struct, frozen=True):
    ask: Ask
    price: Price | None
    prepared: Prepared
    """With a limit to what the engine may generate, where a hold must cover it."""


class Admission:
    def __init__(self, nodes: Nodes, prices: Prices, budgets: Budgets, everyone: Layer, default_output: int) -> None:
        """`everyone`: the global layer; `default_output`: tokens that a request without a limit counts as."""
        self._nodes = nodes
        self._prices = prices
        self._budgets = budgets
        self._everyone = everyone
        self._default_output = default_output

    def entry(self, caller: Caller, endpoint: Endpoint, prepared: Prepared, billed: bool, now: datetime) -> Entry:
        """Raises Unavailable when a hard budget applies and nobody has said what the model costs."""
        layers = limits.layers(caller.limits, self._everyone)
        if not billed:
            return Entry(Ask(layers), None, prepared)
        model = self._nodes.model(prepared.model)
        generates = LIMIT_FIELDS.get(endpoint)
        size = limits.size(
            prompt_bytes=prepared.prompt_bytes,
            max_output=prepared.max_output if generates else 0,
            choices=prepared.choices,
            max_model_len=model.max_model_len if model else 0,
            default_output=self._default_output,
        )
        price = self._prices.in_force(prepared.model, caller.region, now, self._budgets.plan(caller.tenant_id, now))
        hold = None
        if model is not None and self._budgets.limits(caller):
            if price is None:
                raise Unavailable(
                    f"no price of `{prepared.model}` is known, and the budget must be kept", retry_after=5
                )
            most = max(price.input, price.cached_input) * size.most_prompt + price.output * size.output
            hold = self._budgets.hold(caller, most)
            if generates and size.per_choice is not None:
                prepared = _with_limit(prepared, generates, size.per_choice)
        return Entry(Ask(layers, size.prompt + size.output, hold), price, prepared)


def _with_limit(prepared: Prepared, field: str, tokens: int) -> Prepared:
    fields = {**prepared.fields, field: msgspec.Raw(str(tokens).encode())}
    return msgspec.structs.replace(prepared, fields=fields, body=msgspec.json.encode(fields))
