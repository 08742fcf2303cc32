"""Tenants as the gateway, which owns them, tells of them. Every call raises Unavailable when it does not answer."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import msgspec

from common.bus import Bus
from common.errors import NotFound, Unavailable
from common.rpc import Call, Reply, forward
from common.tenants import PROFILES, STANDING, Profile, Profiles, Standing


async def profile(bus: Bus, tenant_id: UUID) -> Profile:
    """Raises NotFound."""
    return msgspec.json.decode(await _ask(bus, "GET", f"{PROFILES}/{tenant_id}"), type=Profile)


async def profiles(bus: Bus) -> AsyncIterator[Profile]:
    """All of them, in order of id."""
    after = UUID(int=0)
    while True:
        body = await _ask(bus, "GET", PROFILES, after=str(after))
        page = msgspec.json.decode(body, type=Profiles).tenants
        for found in page:
            yield found
        if not page:
            return
        after = page[-1].id


async def stand(bus: Bus, tenant_id: UUID, *, paid: bool) -> None:
    """Suspend it for non-payment, or lift that; repeated it changes nothing. Raises NotFound."""
    await _ask(bus, "POST", STANDING.format(id=tenant_id), Standing(paid))


async def _ask(bus: Bus, method: str, path: str, body: object = None, **query: str) -> bytes:
    raw = msgspec.Raw(msgspec.json.encode(body))
    call = Call(method=method, path=path, query=query, body=raw, actor="billing", request_id=str(uuid4()))
    reply: Reply = await forward(bus, "gateway", call)
    if reply.status == 404:
        raise NotFound(f"the gateway knows nothing at {path}")
    if reply.status >= 300:
        raise Unavailable(f"the gateway answered {reply.status}")
    return bytes(reply.body)
