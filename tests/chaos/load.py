"""Clients of every kind at once: streams, whole answers, hang-ups; each remembers what it was given."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
from chaos.verdict import Sent

WORKERS = 30
PATIENCE = aiohttp.ClientTimeout(total=120, sock_read=60)


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    usage: _Usage | None = None
    error: Any = None  # any shape is a failure


class Load:
    def __init__(self, url: str, key: str, model: str, seed: int) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._model = model
        self._seed = seed
        self.sent: list[Sent] = []
        self.failures: Counter[str] = Counter()
        """Why requests were not answered."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then what has begun ends by itself."""
        async with asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(self._work(random.Random(f"{self._seed}.{worker}"), stopping))

    async def _work(self, choose: random.Random, stopping: asyncio.Event) -> None:
        async with aiohttp.ClientSession(headers=self._headers, timeout=PATIENCE) as session:
            while not stopping.is_set():
                sent = Sent()
                self.sent.append(sent)
                try:
                    await self._one(session, choose, sent)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    sent.ended = "failed"
                    self.failures[type(error).__name__] += 1
                if sent.ended in ("failed", "unanswered"):
                    await asyncio.sleep(0.05)

    async def _one(self, session: aiohttp.ClientSession, choose: random.Random, sent: Sent) -> None:
        kind = choose.choices(["stream", "whole", "hang_up"], [60, 25, 15])[0]
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "tell me of the river " * choose.randint(1, 30)}],
            "max_tokens": choose.choice([1, 5, 20, 60, 150]),
            "stream": kind != "whole",
        }
        if kind != "whole":
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        leave_at = choose.randint(1, 40) if kind == "hang_up" else 0
        async with session.post(self._url, json=body) as response:
            sent.request_id = response.headers.get("x-request-id", "")
            if response.status != 200:
                sent.ended = "failed"
                self.failures[f"{response.status} {(await response.json())['error']['code']}"] += 1
                return
            if kind == "whole":
                answer = msgspec.json.decode(await response.read(), type=_Chunk)
                sent.received = answer.usage.completion_tokens if answer.usage else 0
                sent.ended = "completed"
                return
            with suppress(StopAsyncIteration):
                await self._read(response, leave_at, sent)

    async def _read(self, response: aiohttp.ClientResponse, leave_at: int, sent: Sent) -> None:
        async for line in response.content:
            if line == b"data: [DONE]\n":
                sent.ended = "completed"
            elif line.startswith(b"data: {"):
                chunk = msgspec.json.decode(line[6:], type=_Chunk)
                if chunk.error is not None:
                    sent.ended = "failed"
                    self.failures["in-stream error"] += 1
                if chunk.usage is not None:
                    sent.received = max(sent.received, chunk.usage.completion_tokens)
                if leave_at and sent.received >= leave_at:
                    sent.ended = "hung_up"
                    response.close()
                    return
