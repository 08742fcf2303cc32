"""What billing asks the scheduler: tokens that it had engines make for itself, which no ledger has."""

from datetime import datetime

import msgspec

PROBED = "/internal/probed"
"""Path of the call `Span` in the query → `Probes`."""


class Span(msgspec.Struct, frozen=True):
    since: datetime
    until: datetime


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's counters hold these tokens; no ledger does."""

    node_id: str
    hour: datetime
    model: str
    requests: int
    unanswered: int
    """Of them, those of which it is not known what the engine has counted: a token or none."""
    input_tokens: int
    output_tokens: int


class Probes(msgspec.Struct, frozen=True):
    probes: list[Probed]
