"""An expired lease to the usage record that its gateway could not write any more. Pure."""

from datetime import datetime

import msgspec

from common.errors import Unprocessable
from common.events import UsageRecorded
from common.leases import Progress


class Expired(msgspec.Struct, frozen=True):
    """A lease as Redis holds it."""

    id: str
    intent: bytes
    """JSON of a `UsageRecorded`; its outcome, tokens and times of ending are placeholders."""
    progress: bytes
    """JSON of a `Progress`; empty before the first renewal."""
    node: str


def settled(lease: Expired, now: datetime) -> UsageRecorded:
    """What was delivered until the last renewal. Raises Unprocessable when the lease cannot be read."""
    try:
        draft = msgspec.json.decode(lease.intent, type=UsageRecorded)
        progress = msgspec.json.decode(lease.progress, type=Progress) if lease.progress else Progress()
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unprocessable(f"lease {lease.id} cannot be read: {error}") from error
    reported = progress.input_tokens or progress.output_tokens
    return msgspec.structs.replace(
        draft,
        time=now,
        ended_at=now,
        node_id=lease.node,
        outcome="gateway_lost",
        usage_source="continuous" if reported else "estimated",
        input_tokens=progress.input_tokens,
        cached_tokens=progress.cached_tokens,
        output_tokens=progress.output_tokens,
        first_token_at=progress.first_token_at,
        attempts=progress.attempts,
    )


def message_id(record: UsageRecorded) -> str:
    """Not the record's own id: JetStream would drop a late true record of the gateway as a duplicate of this one.

    Nor the same for each progress: a gateway that was only paused, went on and then died is reaped twice, and the
    ledger keeps the record with more tokens.
    """
    return f"{record.id}.gateway_lost.{record.output_tokens}"
