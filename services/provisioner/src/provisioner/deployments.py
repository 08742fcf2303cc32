"""What admins do with deployments: each a check, one transaction, and a word to who carries it out."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import msgspec

from common.db import Connection, Pool, transaction
from common.deployments import Spec
from common.errors import InvalidRequest, NotFound, invalid
from common.ids import new_id
from provisioner import deployment_store as store
from provisioner import launch_store
from provisioner.argv import argv
from provisioner.deployment_store import Deployment
from provisioner.fitting import Defaults, Plan, checked
from provisioner.launch_store import Told
from provisioner.money import usd
from provisioner.offers import Offer, Offers, offer

FIXED = ("name", "model", "launcher")
MACHINE = ("revision", "image", "vllm_version", "accelerators", "clouds", "regions", "spot", "vllm_args")
"""What another machine is needed for; all else of a spec changes in place."""
SHOWN = 50
"""Candidates of a plan."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    """Of the first choice of accelerator, as it would run on a cloud."""
    image: str | None
    candidates: list[Offer]
    """In the order in which they would be tried."""
    hourly_usd: str | None
    """Of one replica on the first of them."""
    usd_per_million_tokens: str | None


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    model: str
    status: str
    generation: int
    good_generation: int
    replicas: int
    ready: int
    waiting: str
    spent_usd: str
    """This month."""
    spec: Spec
    launches: list[Told]
    """That have not ended."""
    created_at: datetime
    updated_at: datetime
    plan: Planned | None = None


class Deployments:
    def __init__(self, pool: Pool, defaults: Defaults, offers: Offers, changed: Callable[[], Awaitable[None]]) -> None:
        self._pool, self._defaults, self._offers, self._changed = pool, defaults, offers, changed

    async def plan(self, spec: Spec) -> Planned:
        return await self._planned(checked(spec, self._defaults))

    async def create(self, spec: Spec) -> Shown:
        plan = checked(spec, self._defaults)
        planned = await self._planned(plan)
        id = new_id()
        async with transaction(self._pool) as connection:
            await store.create(connection, id, plan.spec, plan.spec.min_replicas)
            shown = await _one(connection, id)
        await self._changed()
        return msgspec.structs.replace(shown, plan=planned)

    async def listed(self) -> list[Shown]:
        async with transaction(self._pool) as connection:
            return await _shown(connection, await store.listed(connection))

    async def one(self, id: UUID) -> Shown:
        async with transaction(self._pool) as connection:
            return await _one(connection, id)

    async def preview(self, id: UUID, changes: dict[str, msgspec.Raw]) -> Planned:
        """What `change` would lead to."""
        async with transaction(self._pool) as connection:
            known = await _existing(connection, id)
        return await self._planned(checked(merged(known.spec, changes), self._defaults))

    async def change(self, id: UUID, changes: dict[str, msgspec.Raw]) -> Shown:
        async with transaction(self._pool) as connection:
            known = await _existing(connection, id)
        planned = await self._planned(checked(merged(known.spec, changes), self._defaults))
        async with transaction(self._pool) as connection:
            known = await _existing(connection, id, lock=True)
            spec = checked(merged(known.spec, changes), self._defaults).spec
            again = any(getattr(spec, name) != getattr(known.spec, name) for name in MACHINE)
            replicas = min(max(known.replicas, spec.min_replicas), spec.max_replicas)
            await store.change(connection, id, known.generation + again, spec, replicas)
            shown = await _one(connection, id)
        await self._changed()
        return msgspec.structs.replace(shown, plan=planned)

    async def scale(self, id: UUID, replicas: int) -> Shown:
        """Until the scheduler asks for another number."""
        async with transaction(self._pool) as connection:
            known = await _existing(connection, id, lock=True)
            least, most = known.spec.min_replicas, known.spec.max_replicas
            if not least <= replicas <= most:
                raise InvalidRequest(f"expected a number from {least} to {most}", param="replicas")
            await store.scale(connection, id, replicas)
            shown = await _one(connection, id)
        await self._changed()
        return shown

    async def delete(self, id: UUID) -> Shown:
        """Its machines are drained and ended first; it is there, as deleting, until they are gone."""
        async with transaction(self._pool) as connection:
            await _existing(connection, id, lock=True)
            await store.mark(connection, id, "deleting")
            shown = await _one(connection, id)
        await self._changed()
        return shown

    async def _planned(self, plan: Plan) -> Planned:
        candidates = await self._offers.of(plan.spec)
        offers = [offer(plan.spec, candidate) for candidate in candidates[:SHOWN]]
        return Planned(
            argv=argv(plan, 0, "0.0.0.0", 8000),  # noqa: S104  in a machine of its own
            image=plan.spec.image,
            candidates=offers,
            hourly_usd=offers[0].hourly_usd if offers else None,
            usd_per_million_tokens=offers[0].usd_per_million_tokens if offers else None,
        )


def merged(spec: Spec, changes: dict[str, msgspec.Raw]) -> Spec:
    """The spec with these fields of it changed; null takes one back to its default. Raises InvalidRequest."""
    known = {field.name for field in msgspec.structs.fields(Spec)}
    for name in changes:
        if name not in known:
            raise InvalidRequest(f"Object contains unknown field `{name[:60]}`", param=name[:60])
        if name in FIXED:
            raise InvalidRequest("cannot be changed: make another deployment", param=name)
    fields = msgspec.json.decode(msgspec.json.encode(spec), type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in {**fields, **changes}.items() if bytes(value).strip() != b"null"}
    try:
        return msgspec.json.decode(msgspec.json.encode(kept), type=Spec)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


async def _existing(connection: Connection, id: UUID, *, lock: bool = False) -> Deployment:
    found = await store.one(connection, id, lock=lock)
    if found is None or found.status == "deleted":
        raise NotFound("there is no such deployment", param="id")
    return found


async def _one(connection: Connection, id: UUID) -> Shown:
    return (await _shown(connection, [await _existing(connection, id)]))[0]


async def _shown(connection: Connection, deployments: list[Deployment]) -> list[Shown]:
    launches = await launch_store.told_live(connection)
    spent = await launch_store.spent_this_month(connection)
    return [
        Shown(
            id=one.id,
            name=one.name,
            model=one.model,
            status=one.status,
            generation=one.generation,
            good_generation=one.good_generation,
            replicas=one.replicas,
            ready=sum(launch.deployment_id == one.id and launch.state == "ready" for launch in launches),
            waiting=one.waiting,
            spent_usd=usd(spent.get(one.id, 0)),
            spec=one.spec,
            launches=[launch for launch in launches if launch.deployment_id == one.id],
            created_at=one.created_at,
            updated_at=one.updated_at,
        )
        for one in deployments
    ]
