"""A connection to Redis that packs the commands of one loop tick into one write; redis-py costs five times the CPU.

    redis[s]://[[user]:password@]host[:port][/database][?ssl_ca_certs=path]     unix://path

One server at a time: all our keys share a hash tag, hence a slot and a server. When a Cluster has moved the slot the
connection follows (MOVED); after a failover the URL's host is resolved anew (READONLY). Sentinel is not asked.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from common.errors import SettingsError, Unavailable
from common.wire import Argument, Future, Place, Wire, fail, packed

log = logging.getLogger(__name__)


class Address(msgspec.Struct, frozen=True):
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    """Of a Unix socket, in place of host and port."""
    user: str = ""
    password: str = ""
    database: int = 0
    tls: bool = False
    ca: str | None = None

    @property
    def greeting(self) -> list[tuple[Argument, ...]]:
        commands: list[tuple[Argument, ...]] = []
        if self.password:
            commands.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands


def parse(url: str) -> Address:
    """Raises SettingsError, without the URL, which holds a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("its scheme")
        local = parts.scheme == "unix"
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        database = query.get("db") or ("" if local else parts.path.strip("/")) or "0"
        return Address(
            host=unquote(parts.hostname or "localhost"),
            port=parts.port or 6379,
            path=unquote(parts.path) if local else "",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(database),
            tls=parts.scheme == "rediss",
            ca=query.get("ssl_ca_certs"),
        )
    except ValueError:
        raise SettingsError("REDIS_URL is not redis[s]://[[user]:password@]host[:port][/database]") from None


class Redis:
    """Down or slow: a command has a budget of seconds; when one exceeds it, or the connection is lost, none is sent
    until Redis has answered a ping, which is tried every `rest` seconds. So no caller pays for finding out.
    """

    def __init__(
        self, url: str, name: str, *, rest: float = 0.1, observe: Callable[[float], None] | None = None
    ) -> None:
        """`name` is what the server calls the connection. `observe` is given the seconds of some round trips."""
        self._home = self._address = parse(url)
        self._name, self._rest, self._observe = name, rest, observe
        self._wire: Wire | None = None
        self._packed: list[bytes] = []
        self._asked: list[Future] = []
        self._budgets: dict[float, list[Future]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._resting = self._closed = False

    async def ask(self, *command: Argument, budget: float) -> object:
        """The reply: bytes, int, list or None. Raises Unavailable, also for a reply that is an error.

        Commands arrive in the order of the calls, whether or not their callers still wait.
        """
        if self._resting:
            raise Unavailable("redis has not answered since a failure")
        future: Future = asyncio.get_running_loop().create_future()
        if not self._packed:
            asyncio.get_running_loop().call_soon(self._flush)
        self._packed.append(packed(command))
        self._asked.append(future)
        self._budgets.setdefault(budget, []).append(future)
        return await future

    async def connect(self) -> None:
        """Connect now rather than at the first command. Raises Unavailable, and goes on trying."""
        await self.ask("PING", budget=2.0)

    def close(self) -> None:
        """What still waits gets Unavailable."""
        if self._opening is not None:
            self._opening.cancel()
        self._resting = self._closed = True
        self._drop("closed")

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        for budget, futures in self._budgets.items():
            loop.call_later(budget, self._expire, futures, budget, loop.time() + budget)
        self._budgets = {}
        if self._wire is not None:
            commands, self._packed = self._packed, []
            asked, self._asked = self._asked, []
            self._wire.send(commands, asked)
        elif self._opening is None and self._packed:
            self._opening = loop.create_task(self._open(0.0))

    def _expire(self, futures: list[Future], budget: float, due: float) -> None:
        waiting = [future for future in futures if not future.done()]
        if not waiting:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - due > budget / 2:
            # we were late ourselves: what Redis has said by now is not read yet
            loop.call_later(budget, self._expire, waiting, budget, loop.time() + budget)
            return
        for future in waiting:
            fail(future, f"no answer within {budget:g} s")
        self._pause(f"no answer within {budget:g} s")

    def _lost(self, wire: Wire, reason: str, moved: Place | None) -> None:
        if moved is not None:
            self._address = msgspec.structs.replace(self._home, host=moved[0], port=moved[1], path="")
        if wire is self._wire:
            self._wire = None
            self._pause(reason)

    def _pause(self, reason: str) -> None:
        if self._closed:
            return
        if not self._resting:
            log.warning("redis: nothing is asked until it answers: %s", reason)
        self._resting = True
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(self._rest))

    async def _open(self, pause: float) -> None:
        """Until Redis has answered."""
        while True:
            await asyncio.sleep(pause)
            pause = self._rest
            try:
                async with asyncio.timeout(1):
                    self._wire = self._wire or await self._connected()
                    await self._wire.ask("PING")
            except (OSError, TimeoutError, Unavailable) as error:
                self._address = self._home
                self._drop(f"{error!r}")
                self._pause(f"{error!r}")
                continue
            self._opening, self._resting = None, False
            if self._packed:
                self._flush()
            return

    async def _connected(self) -> Wire:
        loop, address = asyncio.get_running_loop(), self._address
        context = ssl.create_default_context(cafile=address.ca) if address.tls else None
        wire = Wire(self._lost, self._observe)
        if address.path:
            await loop.create_unix_connection(lambda: wire, address.path)
        else:
            await loop.create_connection(lambda: wire, address.host, address.port, ssl=context)
        try:
            for command in (*address.greeting, ("CLIENT", "SETNAME", self._name)):
                await wire.ask(*command)
        except BaseException:
            wire.close()
            raise
        return wire

    def _drop(self, reason: str) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        for future in self._asked:
            fail(future, reason)
        self._packed, self._asked = [], []
