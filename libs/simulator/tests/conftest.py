"""A running engine, and a client that sees raw bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from simulator import Config, Simulator, serve

Exchange = Callable[..., Awaitable[bytes]]


@pytest.fixture
def config() -> Config:
    return Config(models=("tiny",), token_ms=0, prefill_ms=0, max_model_len=2048)


@pytest.fixture
async def sim(config: Config) -> AsyncIterator[Simulator]:
    async with serve(config) as running:
        yield running


@pytest.fixture
async def http(sim: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sim.url) as session:
        yield session


@pytest.fixture
def exchange() -> Exchange:
    async def send(
        url: str,
        path: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        version: str = "1.1",
    ) -> bytes:
        """The raw response, read until the server has closed."""
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = [f"{method} {path} HTTP/{version}", f"host: {host}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        found = b""
        try:
            # A kept-alive connection stays open; its response is complete where the framing says so.
            while not complete(found):
                data = await asyncio.wait_for(reader.read(65536), 10)
                if not data:
                    break
                found += data
        finally:
            writer.close()
        return found

    return send


def complete(raw: bytes) -> bool:
    head, gap, body = raw.partition(b"\r\n\r\n")
    if not gap:
        return False
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False
