"""What a gateway asks of the queue, on a real server and under a namespace of one's own."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from scheduler.library import code

LONG = 3_600_000  # ms
NO_ADMISSION = (0, "", "", 0, 0, 0)


class Queue:
    def __init__(self, connection: Any) -> None:  # Any: redis-py's client, typed per protocol
        self.redis = connection
        self.namespace = uuid.uuid4().hex

    def __call__(self, name: str, *arguments: object) -> Any:
        return self.redis.fcall(name, 1, f"{{{self.namespace}}}:leases", *arguments)

    def wait(
        self,
        id: str,
        flow: str = "t",
        *,
        weight: float = 1,
        tokens: int = 10,
        waited: int = 0,
        patience: int = LONG,
        most: int = 1000,
        most_of_flow: int = 1000,
        ttl: int = LONG,
        line: str = "m",
        admission: tuple[object, ...] = NO_ADMISSION,
        nodes: tuple[object, ...] = (),
    ) -> str:
        who = (line, flow, weight, waited, patience, most, most_of_flow, "gateway")
        answer = self("cl_wait", id, ttl, "{}", 0.5, *who, tokens, *admission, *nodes)
        return str(answer[0])

    def take(self, id: str, *nodes: object, line: str = "m") -> list[Any]:
        return list(self("cl_take", id, LONG, "{}", 0.5, line, *nodes))

    def offer(self, *nodes: object, line: str = "m") -> int:
        return int(self("cl_offer", line, *nodes))

    def served(self) -> list[str]:
        """Who has got a slot since it was asked last, in order."""
        key = f"{{{self.namespace}}}:granted:gateway"
        return list(self.redis.lpop(key, 1000) or [])

    def load(self, *nodes: str) -> list[int]:
        return list(self("cl_load", *nodes))

    def names(self) -> list[str]:
        return sorted(self.redis.scan_iter(match=f"{{{self.namespace}}}:*", count=1000))


@pytest.fixture
def make_queue(redis_url: str) -> Iterator[Callable[[], Queue]]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.function_load(code(), replace=True)
        yield lambda: Queue(client)


@pytest.fixture
def queue(make_queue: Callable[[], Queue]) -> Queue:
    return make_queue()
