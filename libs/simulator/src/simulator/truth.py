"""What each request really was: the record that bills are compared with."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

_RING: Final = 100_000
_HEADERS: Final = 1_000


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`ending`: completed, client_disconnected, fault:<name>, aborted or refused. Times are Unix seconds."""

    seq: int
    request_id: str  # the X-Request-Id as received, "" without one
    model: str
    endpoint: str
    stream: bool
    prompt_tokens: int
    cached_tokens: int
    output_tokens_produced: int
    output_tokens_delivered: int
    per_choice: tuple[int, ...]  # tokens produced
    ending: str
    status: int  # 0: no head was written
    started: float
    ended: float
    headers: dict[str, str] | None = None  # as received; kept of the last thousand


class Truth:
    """The last hundred thousand records, and a file of all."""

    def __init__(self, path: str = "") -> None:
        # Unbuffered: a record survives the process being killed right after.
        self._file = Path(path).open("ab", buffering=0) if path else None  # noqa: SIM115
        self._ring: deque[Record] = deque(maxlen=_RING)
        self._last: dict[str, Record] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._seq = 0

    @property
    def records(self) -> list[Record]:
        return list(self._ring)

    def next(self) -> int:
        """The number of the record to be added."""
        self._seq += 1
        return self._seq

    def add(self, record: Record) -> None:
        if self._file:
            self._file.write(msgspec.json.encode(record) + b"\n")
        if len(self._ring) == _RING:
            gone = self._ring[0]
            if self._last.get(gone.request_id) is gone:
                del self._last[gone.request_id]
        self._ring.append(record)
        if len(self._ring) > _HEADERS:
            old = self._ring[-1 - _HEADERS]
            bare = msgspec.structs.replace(old, headers=None)
            self._ring[-1 - _HEADERS] = bare
            if self._last.get(old.request_id) is old:
                self._last[old.request_id] = bare
        self._last[record.request_id] = record
        for future in self._waiting.pop(record.request_id, ()):
            if not future.done():
                future.set_result(None)

    def since(self, seq: int) -> list[Record]:
        """Records after number `seq`, oldest first."""
        found: list[Record] = []
        for record in reversed(self._ring):
            if record.seq <= seq:
                break
            found.append(record)
        return found[::-1]

    def all_of(self, request_id: str) -> list[Record]:
        """Every kept record of that id: a retry may reach the same engine twice."""
        if request_id not in self._last:
            return []
        return [r for r in self._ring if r.request_id == request_id]

    async def wait(self, request_id: str, timeout: float) -> list[Record]:
        """`all_of`, once a request of that id has ended or `timeout` seconds passed."""
        if request_id not in self._last and timeout > 0:
            future = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(request_id, set())
            waiting.add(future)
            await asyncio.wait([future], timeout=timeout)
            waiting.discard(future)
        return self.all_of(request_id)

    def close(self) -> None:
        if self._file:
            self._file.close()
