"""The parts of a stack, put together in order: folder, ports, servers, services, engines, the demo tenant."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from stack import ports, postgres, servers, services, state
from stack.bootstrap import Admin, bootstrap
from stack.config import Config
from stack.machines import Machines
from stack.process import Child, Command
from stack.supervisor import Supervisor


class Assembly:
    """Use from one event loop, in a thread that lives as long: see `stack.loop`."""

    postgres: postgres.Postgres
    nats: servers.Server
    valkey: servers.Server

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ports: list[ports.Port] = []
        self._opening: asyncio.Task[None] | None = None
        self._complete = False
        self.folder = config.dir.absolute() if config.dir else open_folder()
        self.supervisor = Supervisor(self.folder / "logs", config.restart, self._tell)
        self.machines = Machines(self.folder)
        self.metrics: dict[str, list[ports.Port]] = {}
        self.engine_urls: tuple[str, ...] = ()
        self.models: tuple[str, ...] = ()

    async def open(self) -> None:
        """Raises StartFailed, PortInUse, AdminRefused; what runs by then is stopped by `close`."""
        self._opening = asyncio.current_task()
        config = self._config
        self.folder.mkdir(parents=True, exist_ok=True)
        _keep_last_logs(self.folder / "logs")
        self.state = state.recall(self.folder / "state.json")
        self.machines.open()
        self.public = self._reserve(config.port, "PORT")
        simulated = [self._reserve() for _ in range(0 if config.engines else config.simulators)]
        simulators = [services.simulator(i, port, config.simulator_settings) for i, port in enumerate(simulated)]
        urls = [url.rstrip("/") for url in config.engines] or [f"http://127.0.0.1:{port.number}" for port in simulated]
        self.engine_urls = tuple(urls)
        await _together(self._start_servers(), self.supervisor.start(*simulators))
        await self.supervisor.start(*self._services())
        if "gateway" in config.services:
            self.state, models = await bootstrap(
                self.gateway_url, self.state, urls, self._remember, priced="billing" in config.services
            )
            self.models = tuple(models)
        self._complete = True
        self._tell()

    async def close(self) -> None:
        """Also while `open` is under way. Gateways first: they settle what they have begun with all else in place."""
        if self._opening and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self._complete = False
        await self.supervisor.stop("gateway")
        await self.supervisor.stop("scheduler", "billing", "provisioner", "simulator")
        await self.machines.close()
        await self.supervisor.stop()
        for port in self._ports:
            port.release()
        (self.folder / "stack.json").unlink(missing_ok=True)
        if self._config.dir is None:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def add_gateway(self) -> int:
        index = len(self.metrics["gateway"])
        await self.supervisor.start(self._gateway(index))
        return index

    async def admin(self, method: str, path: str, body: object) -> Any:  # Any: the JSON of any endpoint
        async with aiohttp.ClientSession() as session:
            return await Admin(session, self.gateway_url, self.state.admin_token).call(method, path, body)

    def child(self, name: str, index: int) -> Child:
        return self.supervisor.child(name, index)

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.public.number}"

    async def _start_servers(self) -> None:
        config = self._config
        port = self._reserve(config.nats_port, "NATS_PORT")
        self.nats = servers.nats(self.folder / "nats", port, self._reserve(), durable=config.durable)
        port = self._reserve(config.redis_port, "REDIS_PORT")
        self.valkey = servers.valkey(self.folder / "valkey", port, durable=config.durable)
        await _together(self.supervisor.start(self.nats.command, self.valkey.command), self._start_postgres())

    async def _start_postgres(self) -> None:
        port = self._reserve(self._config.postgres_port, "POSTGRES_PORT")
        self.postgres = await postgres.prepare(self.folder / "postgres", port, durable=self._config.durable)
        await self.supervisor.start(self.postgres.command)

    def _services(self) -> list[Command]:
        wanted = [name for name in self._config.services if name != "gateway"]
        replicas = [(name, index) for name in wanted for index in range(self._config.replicas.get(name, 1))]
        own = {"provisioner": self.machines.env(self.state.provisioner_secret, self._config.simulator_settings)}
        commands = [
            services.service(name, index, self._metrics_port(name), {**own.get(name, {}), **self._env()})
            for name, index in replicas
        ]
        gateways = self._config.gateways if "gateway" in self._config.services else 0
        return commands + [self._gateway(index) for index in range(gateways)]

    def _gateway(self, index: int) -> Command:
        spool = self.folder / "spool" / f"gateway-{index}"
        spool.mkdir(parents=True, exist_ok=True)
        env = {**self._env(), "ADMIN_API_TOKEN": self.state.admin_token}
        return services.gateway(index, self.public, self._metrics_port("gateway"), spool, env)

    def _env(self) -> dict[str, str]:
        return {
            "POSTGRES_DSN": self.postgres.dsn,
            "NATS_URL": self.nats.url,
            "REDIS_URL": self.valkey.url,
            "REDIS_NAMESPACE": "crosslogic",
            "NOTICE_LOOPBACK": "1",
            **self._config.service_env,
        }

    def _metrics_port(self, name: str) -> ports.Port:
        port = self._reserve()
        self.metrics.setdefault(name, []).append(port)
        return port

    def _reserve(self, number: int = 0, setting: str = "") -> ports.Port:
        port = ports.reserve(number, setting)
        self._ports.append(port)
        return port

    def _remember(self, new: state.State) -> None:
        state.write(self.folder / "state.json", new)

    def _tell(self) -> None:
        if not self._complete:
            return
        running = state.Running(
            gateway_url=self.gateway_url,
            dashboard_url=None,
            admin_token=self.state.admin_token,
            api_key=self.state.api_key,
            tenant_id=self.state.tenant_id,
            nats_url=self.nats.url,
            postgres_dsn=self.postgres.dsn,
            redis_url=self.valkey.url,
            processes=self.supervisor.pids(),
        )
        state.write(self.folder / "stack.json", running)


def open_folder() -> Path:
    """A new folder that an unprivileged Postgres can reach, unlike pytest's `tmp_path` of root."""
    folder = Path(tempfile.mkdtemp(prefix="crosslogic-"))
    folder.chmod(0o711)
    return folder


def _keep_last_logs(logs: Path) -> None:
    """`gateway-0.log` becomes `gateway-0.log.1`; older ones go."""
    for log in logs.glob("*.log"):
        os.replace(log, log.with_suffix(".log.1"))


async def _together(*works: Any) -> None:  # Any: coroutines of None
    """As gather, but what others are doing ends when one fails or we are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
