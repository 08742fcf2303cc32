"""What a fresh stack needs to answer a request: a tenant with a key, prices, nodes; by the public admin API alone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiohttp
import msgspec

from stack.process import StartFailed
from stack.state import State

T = TypeVar("T")
SECONDS = 60.0
PAUSE = 0.05
DEMO_PRICE = {
    "input_usd_per_million": "0.10",
    "cached_input_usd_per_million": "0.01",
    "output_usd_per_million": "0.40",
}


class AdminRefused(Exception):
    """The admin API answered with an error; `status` and `body` are what it said."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path} answered {status}: {body}")
        self.status = status
        self.body = body


class Admin:
    """The admin API of the gateway at `url`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, body: object = None) -> Any:  # Any: the JSON of any endpoint
        """The parsed answer, None if it is empty. Raises AdminRefused, aiohttp.ClientError."""
        async with self._session.request(method, self._url + path, json=body, headers=self._headers) as response:
            text = await response.text()
            if response.status >= 300:
                raise AdminRefused(method, path, response.status, text)
            return msgspec.json.decode(text) if text else None

    async def patiently(self, method: str, path: str, body: object = None) -> Any:  # Any: as above
        """As `call`, tried again while services come up. Raises AdminRefused once the time is over, or for a 4xx."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return await self.call(method, path, body)
            except (AdminRefused, aiohttp.ClientError, TimeoutError) as error:
                final = isinstance(error, AdminRefused) and error.status < 500
                if final or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(PAUSE)


async def bootstrap(
    url: str, state: State, engines: Sequence[str], remember: Callable[[State], None], *, priced: bool
) -> tuple[State, list[str]]:
    """Bring tenant, key, prices and nodes about, and wait until every model of `engines` is served.

    What the last run made is used again; nodes of engines that are gone are removed. `remember` is called after each
    step that must not be taken twice. Returns the state and the models. Raises StartFailed, AdminRefused.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        admin = Admin(session, url, state.admin_token)
        models = sorted({model for engine in engines for model in await _models(session, engine)})
        if not await _key_works(session, url, state.api_key):
            state = State(admin_token=state.admin_token, provisioner_secret=state.provisioner_secret)
            tenant = await admin.patiently("POST", "/admin/tenants", {"name": "demo", "email": "demo@example.com"})
            new_key = {"tenant_id": tenant["id"], "name": "demo"}
            key = await admin.patiently("POST", "/admin/api-keys", new_key)
            state = msgspec.structs.replace(state, tenant_id=tenant["id"], api_key=key["key"])
            remember(state)
        for model in models if priced else ():
            if model not in state.priced:
                await admin.patiently("PUT", "/admin/prices", {"model": model, **DEMO_PRICE})
                state = msgspec.structs.replace(state, priced=state.priced | {model})
                remember(state)
        if engines or state.nodes:
            state = await _register(admin, state, engines, remember)
        await _until_served(admin, session, url, state, models)
        return state, models


async def _register(admin: Admin, state: State, engines: Sequence[str], remember: Callable[[State], None]) -> State:
    listed = (await admin.patiently("GET", "/admin/nodes"))["nodes"]
    known = {node["id"] for node in listed}
    by_endpoint = {node["endpoint"]: node["id"] for node in listed}
    nodes = {engine: id for engine, id in state.nodes.items() if id in known}
    for engine in [engine for engine in nodes if engine not in engines]:
        await admin.patiently("DELETE", f"/admin/nodes/{nodes.pop(engine)}")
    for engine in engines:
        if engine in by_endpoint:
            nodes[engine] = by_endpoint[engine]
        elif engine not in nodes:
            nodes[engine] = (await admin.patiently("POST", "/admin/nodes", {"endpoint": engine}))["id"]
        remember(state := msgspec.structs.replace(state, nodes=dict(nodes)))
    return state


async def _models(session: aiohttp.ClientSession, engine: str) -> list[str]:
    async def ask() -> list[str]:
        async with session.get(f"{engine}/v1/models", timeout=aiohttp.ClientTimeout(total=5)) as response:
            return [model["id"] for model in (await response.json())["data"]] if response.status == 200 else []

    return await _until(ask, f"the engine {engine} does not list its models at /v1/models", seconds=20)


async def _key_works(session: aiohttp.ClientSession, url: str, key: str) -> bool:
    if not key:
        return False

    async def ask() -> int:
        async with session.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}) as response:
            return response.status if response.status < 500 else 0

    return await _until(ask, "the gateway cannot tell whether the key of the last run works") == 200


async def _until_served(
    admin: Admin, session: aiohttp.ClientSession, url: str, state: State, models: list[str]
) -> None:
    async def served() -> bool:
        headers = {"Authorization": f"Bearer {state.api_key}"}
        async with session.get(f"{url}/v1/models", headers=headers) as response:
            if response.status != 200:
                return False
            listed = {model["id"] for model in (await response.json())["data"]}
        nodes = (await admin.patiently("GET", "/admin/nodes"))["nodes"] if state.nodes else []
        ready = {node["id"] for node in nodes if node["state"] == "ready"}
        return listed >= set(models) and ready >= set(state.nodes.values())

    await _until(served, f"not all nodes became ready: {', '.join(state.nodes)}")


async def _until(ask: Callable[[], Awaitable[T]], failure: str, seconds: float = SECONDS) -> T:
    """The first answer that is true. Raises StartFailed with `failure`."""
    deadline = time.monotonic() + seconds
    reason = ""
    while time.monotonic() < deadline:
        try:
            if answer := await ask():
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = f": {error!r}"
        await asyncio.sleep(PAUSE)
    raise StartFailed(failure + reason)
