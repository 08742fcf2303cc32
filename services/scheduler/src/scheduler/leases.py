"""Redis: the function library `crosslogic`, kept loaded, and the calls that only the scheduler makes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from common.errors import Unavailable
from common.leases import LIBRARY, leases_key, model_of
from scheduler.library import code
from scheduler.settlement import Expired


class Backlog(msgspec.Struct, frozen=True):
    leases: int
    overdue: float
    """Seconds since the oldest unsettled lease expired; 0 when there is none."""


class Line(msgspec.Struct, frozen=True):
    """Requests that wait for the same nodes."""

    name: str
    """The model."""
    waiting: int
    waited: float
    """Seconds, of the first."""


class Leases:
    """Every method raises Unavailable when Redis cannot be reached or lacks the functions."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._key = leases_key(namespace)

    async def load_functions(self, *, replace: bool) -> bool:
        """Load the library; without `replace` only where Redis has none. Returns whether it was loaded.

        Only a boot replaces, so that during a rolling update two versions do not take turns.
        """
        if not replace and await self._do("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY):
            return False
        await self._do("FUNCTION", "LOAD", "REPLACE", code())
        return True

    async def reap(self, limit: int, claim: float) -> list[Expired]:
        """Up to `limit` expired leases, claimed for `claim` seconds."""
        found = await self._call("cl_reap", limit, round(claim * 1000))
        return [Expired(id.decode(), intent, progress, node.decode()) for id, intent, progress, node in found]

    async def settle(self, ids: Sequence[str]) -> int:
        """Drop reaped leases; returns how many. Those renewed since are kept."""
        return int(await self._call("cl_settle", *ids)) if ids else 0

    async def live(self, nodes: Sequence[str]) -> dict[str, int]:
        """Live requests of each node."""
        return dict(zip(nodes, await self._call("cl_load", *nodes), strict=True)) if nodes else {}

    async def lines(self) -> list[Line]:
        """Those that are not empty; the lines of a model by region are one here."""
        found: dict[str, Line] = {}
        for name, waiting, waited, *_ in await self._call("cl_queue"):
            model = model_of(name.decode())
            others = found.get(model, Line(model, 0, 0.0))
            found[model] = Line(model, others.waiting + int(waiting), max(others.waited, int(waited) / 1000))
        return list(found.values())

    async def backlog(self) -> Backlog:
        seconds, micros = await self._do("TIME")
        first = await self._do("ZRANGE", self._key, 0, 0, "WITHSCORES")
        late = int(seconds) + int(micros) / 1e6 - float(_score(first)) / 1000 if first else 0.0
        return Backlog(int(await self._do("ZCARD", self._key)), max(late, 0.0))

    async def _call(self, function: str, *arguments: str | int) -> Any:  # Any: Redis's reply
        return await self._do("FCALL", function, 1, self._key, *arguments)

    async def _do(self, *command: str | int) -> Any:  # Any: Redis's reply
        try:
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis did not answer {command[0]}: {error!r}") from error


def _score(entry: Any) -> Any:  # Any: a pair under RESP3, flat under RESP2
    return entry[0][1] if isinstance(entry[0], list | tuple) else entry[1]


@asynccontextmanager
async def open_leases(url: str, namespace: str) -> AsyncIterator[Leases]:
    """Does not connect yet: the scheduler starts without Redis, too."""
    redis = Redis.from_url(
        url,
        socket_timeout=2,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 1),
        client_name="scheduler",
    )
    try:
        yield Leases(redis, namespace)
    finally:
        await redis.aclose()
