"""The plans that a tenant may be on. The checks of billing's and the gateway's tables name the same ones."""

from typing import Literal, TypeAlias

Plan: TypeAlias = Literal["pay_as_you_go", "prepaid", "free", "committed"]
DEFAULT: Plan = "pay_as_you_go"
"""Of a tenant that was never put on another."""
REFUSING: frozenset[Plan] = frozenset({"prepaid", "free"})
"""On these nothing is owed later: once allowance and credits are used up, requests are refused."""
