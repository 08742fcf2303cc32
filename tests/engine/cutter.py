"""A TCP proxy before an engine, which cuts a stream after so many events, as a machine that is lost does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Cutter:
    def __init__(self, target: str) -> None:
        url = urlsplit(target)
        self._host, self._port = url.hostname or "", url.port or 80
        self.url = ""
        self.cut_after: int | None = None
        """Events of the next stream after which both connections end; used once."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_connection(self._host, self._port)
        up = asyncio.create_task(self._up(reader, engine_writer))
        seen = 0
        try:
            while data := await engine_reader.read(65536):
                seen += data.count(b"data: {")
                if self.cut_after is not None and seen >= self.cut_after:
                    self.cut_after = None
                    writer.write(data)
                    await writer.drain()
                    break
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            return
        finally:
            up.cancel()
            for end in (writer, engine_writer):
                end.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            return
        writer.transport.abort()


@asynccontextmanager
async def cutting(target: str) -> AsyncIterator[Cutter]:
    cutter = Cutter(target)
    server = await asyncio.start_server(cutter.carry, "127.0.0.1", 0)
    cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cutter
    finally:
        server.close()
