"""Telling every gateway, once a change is committed, that keys must be read again."""

from datetime import datetime
from uuid import UUID

from common.bus import Bus, encode
from common.events import KeyChanged
from common.ids import new_id


async def announce(bus: Bus, tenant_id: UUID, hashes: list[str], now: datetime) -> None:
    """`hashes` are SHA-256 in hex. Who does not hear it believes the old for the time that keys are cached."""
    event = KeyChanged(id=new_id(), time=now, tenant_id=tenant_id, hashes=tuple(hashes))
    await bus.tell("key.changed.v1", encode(event))
