"""Usage records on disk while NATS is away: written through to the disk, published later with the same ids.

One file a process, named by its id and locked while it lives, so that the records of one that was killed are found by
the next. A line that cannot be read (a crash in the middle of a write cuts the last one) is kept aside for a person.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from common.events import UsageRecorded
from common.ids import new_id

log = logging.getLogger(__name__)


class Spool:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._path: Path | None = None

    def append(self, events: list[UsageRecorded]) -> None:
        """Returns once they are on the disk; raises OSError. Blocks: call it in a thread."""
        if self._file is None:
            self._path = self._folder / f"{new_id()}.jsonl"
            self._file = self._path.open("ab", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            _sync_folder(self._folder)
        self._file.write(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
        os.fsync(self._file.fileno())

    def rotate(self) -> None:
        """Let go of the current file, so that `files` offers it."""
        if self._file is not None:
            self._file.close()
            self._file, self._path = None, None

    def files(self) -> Iterator[tuple[Path, list[UsageRecorded]]]:
        """Files that nobody writes to any more, with their records."""
        for path in sorted(self._folder.glob("*.jsonl")):
            if path == self._path:
                continue
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # a living process writes to it
                yield path, _read(path, file.read())

    def discard(self, path: Path) -> None:
        path.unlink(missing_ok=True)


def _read(path: Path, content: bytes) -> list[UsageRecorded]:
    found, unreadable = [], []
    for line in content.splitlines(keepends=True):
        try:
            found.append(msgspec.json.decode(line, type=UsageRecorded))
        except msgspec.MsgspecError:
            unreadable.append(line)
    if unreadable:
        log.error("spool: %s lines of %s cannot be read and are kept beside it", len(unreadable), path.name)
        path.with_suffix(".unreadable").write_bytes(b"".join(unreadable))
    return found


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
