"""Records on disk while NATS is away."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from common.events import UsageRecorded
from common.ids import new_id
from gateway.spool import Spool

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def record() -> UsageRecorded:
    return UsageRecorded(
        id=new_id(),
        time=NOW,
        tenant_id=new_id(),
        environment_id=new_id(),
        api_key_id=new_id(),
        model="m",
        endpoint="completions",
        streamed=True,
        outcome="completed",
        usage_source="engine",
        input_tokens=1,
        output_tokens=2,
        started_at=NOW,
        ended_at=NOW,
    )


def test_records_are_offered_once_their_file_is_closed(tmp_path: Path) -> None:
    spool, events = Spool(tmp_path), [record(), record()]
    spool.append(events[:1])
    spool.append(events[1:])
    assert list(spool.files()) == []
    spool.rotate()
    (path, found), *rest = spool.files()
    assert (found, rest) == (events, [])
    spool.discard(path)
    assert list(Spool(tmp_path).files()) == []


def test_the_records_of_a_killed_process_are_found_and_a_cut_line_is_kept_aside(tmp_path: Path) -> None:
    event = record()
    code = (
        "import sys, os, signal, msgspec; from pathlib import Path; from gateway.spool import Spool;"
        "from common.events import UsageRecorded;"
        "s = Spool(Path(sys.argv[1])); s.append([msgspec.json.decode(sys.argv[2].encode(), type=UsageRecorded)]);"
        's._file.write(b\'{"id":"019\'); os.kill(os.getpid(), signal.SIGKILL)'
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), msgspec.json.encode(event).decode()], check=False)
    spool = Spool(tmp_path)
    ((path, found),) = spool.files()
    assert found == [event]
    spool.discard(path)
    assert [kept.suffix for kept in tmp_path.iterdir()] == [".unreadable"]


def test_the_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living, other = Spool(tmp_path), Spool(tmp_path)
    living.append([record()])
    assert list(other.files()) == []
    living.rotate()
