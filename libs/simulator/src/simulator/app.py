"""The whole engine as one async context: opened, served, ended as vLLM ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from simulator.config import Config
from simulator.engine import Engine
from simulator.faults import Armed
from simulator.routes import Routes
from simulator.serving import Serving
from simulator.truth import Record, Truth

# vLLM behind uvicorn closes an idle connection after this long.
_IDLE_S = 5.0
_GRACE_S = 2.0
_MOST_BYTES = 256 * 1024 * 1024


class Simulator:
    """A running engine."""

    def __init__(self, url: str, engine: Engine, truth: Truth, armed: Armed) -> None:
        self.url = url
        self.engine = engine
        self.faults = armed
        self._truth = truth

    @property
    def requests(self) -> list[Record]:
        """Ground truth of every request that ended, oldest first."""
        return self._truth.records

    async def ended(self, request_id: str, timeout: float = 5.0) -> Record:
        """The last record of that X-Request-Id, waited for; TimeoutError if none comes."""
        found = await self._truth.wait(request_id, timeout)
        if not found:
            raise TimeoutError(f"no request {request_id} ended within {timeout} s")
        return found[-1]


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    # aiohttp would refuse a body beyond 1 MB; the engine has no such limit.
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MOST_BYTES)


@asynccontextmanager
async def serve(config: Config) -> AsyncIterator[Simulator]:
    """Serve until the context ends: then running requests end with finish reason "abort", usage and [DONE]."""
    truth = Truth(config.ground_truth)
    engine = Engine(config)
    armed = Armed(config.seed)
    routes = Routes(config, engine, Serving(config, engine, truth, armed), truth, armed)
    server = web.Server(
        routes.handle,
        request_factory=_request,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=_IDLE_S,
        tcp_keepalive=False,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.port, backlog=4096, reuse_address=True)
        await site.start()
        port = runner.addresses[0][1]
        yield Simulator(f"http://{config.host}:{port}", engine, truth, armed)
        await site.stop()
    finally:
        engine.abort_all()
        await runner.cleanup()
        truth.close()
