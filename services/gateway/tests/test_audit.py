"""The chain shows any change of any entry; a flood of denials is counted, not told."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import new_id
from gateway.audit import FIRST, Author, Sealed, digest, entry, first_bad, plain, seal
from gateway.sampling import ALL, EACH, MINUTE, OTHERS, Sampling

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
AUTHOR = Author("root", "POST /admin/tenants", "192.0.2.1", "r1")


def chain(length: int) -> list[Sealed]:
    found: list[Sealed] = []
    for seq in range(1, length + 1):
        one = entry(AUTHOR, new_id(), NOW, target=seq, tenant_id=None, status=201, after={"b": 1, "a": seq})
        found.append(seal(one, seq, found[-1].hash if found else FIRST))
    return found


def test_a_chain_is_whole_from_any_entry_on() -> None:
    entries = chain(5)
    assert first_bad(entries, 0, FIRST) is None
    assert first_bad(entries[2:], 2, entries[1].hash) is None
    again = msgspec.json.decode(msgspec.json.encode(entries), type=list[Sealed])
    assert first_bad(again, 0, FIRST) is None


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "operator:x"},
        {"status": None},
        {"target": ""},
        {"count": 2},
        {"after_sha256": None},
        {"time": datetime(2026, 1, 2, 3, 4, 5, 678902, tzinfo=UTC)},
        {"hash": FIRST},
        {"prev_hash": FIRST},
        {"seq": 4},
    ],
)
def test_a_changed_entry_breaks_it(change: dict[str, Any]) -> None:
    entries = chain(5)
    entries[2] = msgspec.structs.replace(entries[2], **change)
    assert first_bad(entries, 0, FIRST) == 3


def test_a_missing_a_swapped_and_a_resealed_entry_break_it() -> None:
    entries = chain(5)
    assert first_bad(entries[:2] + entries[3:], 0, FIRST) == 3
    assert first_bad([entries[0], entries[2], entries[1], *entries[3:]], 0, FIRST) == 2
    changed = msgspec.structs.replace(entries[2], actor="nobody")
    assert first_bad([*entries[:2], seal(changed, 3, changed.prev_hash), *entries[3:]], 0, FIRST) == 4


@given(st.text(), st.text())
def test_what_is_told_can_be_stored(one: str, other: str) -> None:
    text = plain(one + "\x00\n\ud800" + other)
    assert "\x00" not in text
    assert "\n" not in text
    assert len(text.encode()) < 2100


def test_a_digest_is_of_the_content_and_not_of_its_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert digest(None) is None


def test_a_flood_from_one_address_is_summed() -> None:
    sampling = Sampling(0.0)
    told = [sampling.tell("192.0.2.1") for _ in range(EACH + 7)]
    assert sum(told) == EACH
    assert sampling.tell("192.0.2.2")
    assert sampling.close(MINUTE - 1) == {}
    assert sampling.close(MINUTE) == {"192.0.2.1": 7}
    assert sampling.tell("192.0.2.1")
    sampling.restore({"192.0.2.1": 7})
    assert sampling.close(MINUTE + 1, early=True) == {"192.0.2.1": 7}


def test_a_flood_from_everywhere_is_bounded_too() -> None:
    sampling = Sampling(0.0)
    calls = 20_000
    told = sum(sampling.tell(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(calls))
    assert told == ALL
    untold = sampling.close(MINUTE)
    assert sum(untold.values()) == calls - ALL
    assert len(untold) <= 1001
    assert OTHERS in untold
