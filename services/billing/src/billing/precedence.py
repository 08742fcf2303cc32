"""Which of several records with one id counts. Pure, and a total order, so that the order of arrival never matters."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from common.events import UsageRecorded


def beats(new: UsageRecorded, old: UsageRecorded) -> bool:
    """Whether `new` takes the place of `old`, a record with the same id.

    A record of the gateway itself beats the reaper's provisional `gateway_lost`; then more output, more input, the
    later end; at last the bytes, so that there is no tie but between equals.
    """
    mine, other = _rank(new), _rank(old)
    return mine > other if mine != other else canonical(new) > canonical(old)


def reduce(records: Iterable[UsageRecorded]) -> dict[UUID, UsageRecorded]:
    """The one record that counts of each id."""
    kept: dict[UUID, UsageRecorded] = {}
    for record in records:
        rival = kept.setdefault(record.id, record)
        if rival is not record and beats(record, rival):
            kept[record.id] = record
    return kept


def canonical(record: UsageRecorded) -> bytes:
    """JSON with times in UTC: equal records give equal bytes, whichever offset they came with."""
    return msgspec.json.encode(
        msgspec.structs.replace(
            record,
            time=record.time.astimezone(UTC),
            started_at=record.started_at.astimezone(UTC),
            first_token_at=record.first_token_at and record.first_token_at.astimezone(UTC),
            ended_at=record.ended_at.astimezone(UTC),
        )
    )


def _rank(record: UsageRecorded) -> tuple[bool, int, int, datetime]:
    return (record.outcome != "gateway_lost", record.output_tokens, record.input_tokens, record.ended_at)
