from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from common.errors import Unprocessable
from common.events import UsageRecorded
from common.leases import Progress
from scheduler.settlement import Expired, message_id, settled

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(seconds=30)


def test_what_was_delivered_is_billed(draft: UsageRecorded) -> None:
    first = START + timedelta(seconds=1)
    progress = msgspec.json.encode(Progress(17, 5, 40, first, 2))
    record = settled(Expired(str(draft.id), msgspec.json.encode(draft), progress, "node-1"), NOW)
    assert record == msgspec.structs.replace(
        draft,
        time=NOW,
        ended_at=NOW,
        node_id="node-1",
        outcome="gateway_lost",
        usage_source="continuous",
        input_tokens=17,
        cached_tokens=5,
        output_tokens=40,
        first_token_at=first,
        attempts=2,
    )
    assert message_id(record) == f"{draft.id}.gateway_lost.{record.output_tokens}"


@pytest.mark.parametrize("progress", [b"", b"[]", b"[0,0,0,null,3]"])
def test_nothing_delivered_is_nothing_billed(draft: UsageRecorded, progress: bytes) -> None:
    record = settled(Expired("x", msgspec.json.encode(draft), progress, "node-1"), NOW)
    assert (record.input_tokens, record.output_tokens, record.usage_source) == (0, 0, "estimated")


@pytest.mark.parametrize(("intent", "progress"), [(b"", b""), (b"{}", b""), (None, b"x"), (None, b'["many"]')])
def test_what_cannot_be_read_is_not_guessed(draft: UsageRecorded, intent: bytes | None, progress: bytes) -> None:
    if intent is None:
        intent = msgspec.json.encode(draft)
    with pytest.raises(Unprocessable, match="lease x"):
        settled(Expired("x", intent, progress, "node-1"), NOW)
