"""Carries one launch from its state to the next: each call to a launcher or the scheduler between two writes.

Killed anywhere, the next one to lead finds the state that was written last and does the same again: launchers know
their clusters by name, the scheduler its nodes by endpoint, and a write goes from a known state or not at all.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from common import events
from common.bus import Bus, encode
from common.db import Pool, transaction
from common.deployments import Spec
from common.errors import InvalidRequest, Unavailable
from common.ids import new_id
from provisioner import deployment_store, launch_store
from provisioner.fitting import Defaults, checked
from provisioner.launcher import Failed, Launcher, Order, Pending, Up
from provisioner.metrics import FAILED
from provisioner.nodes import Node, Nodes, Refused
from provisioner.reconcile import Launch, State
from provisioner.secret import Secret

log = logging.getLogger(__name__)

GATEWAYS_LEARN = timedelta(seconds=3)
"""Until every gateway knows that a node drains; requests may still come to it before."""


class Life:
    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        launchers: Mapping[str, Launcher],
        nodes: Nodes,
        secret: Secret,
        defaults: Defaults,
    ) -> None:
        self._pool, self._bus, self._launchers, self._nodes = pool, bus, launchers, nodes
        self._secret, self._defaults = secret, defaults

    async def advance(self, launch: Launch, spec: Spec, nodes: Mapping[str, Node] | None, now: datetime) -> None:
        """One step, if there is one to take. `nodes` is None when the scheduler does not answer. Raises Unavailable."""
        launcher = self._launchers.get(launch.launcher)
        if launcher is None:
            raise Unavailable(f"the launcher {launch.launcher} is not set up here")
        match launch.state:
            case "intended":
                await self._launch(launch, spec, launcher)
            case "launching":
                await self._poll(launch, launcher)
            case "warming" | "ready" if nodes is not None:
                await self._watch(launch, spec, nodes)
            case "draining" if nodes is not None:
                await self._drain(launch, nodes, now)
            case "ending":
                await self._end(launch, spec, launcher)

    async def _launch(self, launch: Launch, spec: Spec, launcher: Launcher) -> None:
        try:
            plan = checked(spec, self._defaults)  # whatever has let it in: what may run may have changed since
        except InvalidRequest as error:
            await self._move(launch, "ending", reason=f"{error.param}: {error.message}", failure="broken")
            return
        order = Order(
            cluster=launch.cluster,
            plan=plan,
            candidate=launch.candidate,
            key=self._secret.engine_key(launch.cluster),
        )
        request_id = await launcher.find(launch.cluster) or await launcher.launch(order)
        await self._tell(events.LaunchStarted, launch, spec)
        await self._move(launch, "launching", request_id=request_id)

    async def _poll(self, launch: Launch, launcher: Launcher) -> None:
        assert launch.request_id is not None
        match await launcher.poll(launch.cluster, launch.request_id):
            case Up(endpoint):
                await self._move(launch, "warming", endpoint=endpoint)
            case Failed(reason, failure):
                await self._move(launch, "ending", reason=reason, failure=failure)
            case Pending():
                pass

    async def _watch(self, launch: Launch, spec: Spec, nodes: Mapping[str, Node]) -> None:
        node = nodes.get(launch.node_id or "")
        if node is None or node.weight != spec.weight:
            await self._register(launch, spec)
        elif node.state == "draining":
            await self._move(launch, "draining", reason="drained at the scheduler")
        elif launch.state == "warming" and node.state == "ready":
            await self._tell(events.LaunchSucceeded, launch, spec, node_id=node.id)
            async with transaction(self._pool) as connection:
                if await launch_store.move(connection, launch, "ready"):
                    await deployment_store.proved(connection, launch.deployment_id, launch.generation)
            log.info("%s is ready as node %s", launch.cluster, node.id)

    async def _register(self, launch: Launch, spec: Spec) -> None:
        assert launch.endpoint is not None
        region = "" if launch.launcher == "local" else launch.candidate.region
        try:
            key = self._secret.engine_key(launch.cluster)
            node_id = await self._nodes.register(launch.endpoint, region, key, spec.weight)
        except Refused as error:
            await self._move(launch, "ending", reason=str(error), failure="broken")
            return
        await self._move(launch, launch.state, node_id=node_id)

    async def _drain(self, launch: Launch, nodes: Mapping[str, Node], now: datetime) -> None:
        node = nodes.get(launch.node_id or "")
        if node is not None and node.state != "draining":
            await self._nodes.drain(node.id)
        elif node is None or (node.live == 0 and now - launch.state_at > GATEWAYS_LEARN):
            await self._move(launch, "ending")

    async def _end(self, launch: Launch, spec: Spec, launcher: Launcher) -> None:
        if launch.node_id is not None:
            await self._nodes.remove(launch.node_id)
        await launcher.down(launch.cluster, launch.request_id)
        if launch.failure is None:
            await self._move(launch, "gone")
            return
        FAILED.labels(launch.failure).inc()
        await self._tell(events.LaunchFailed, launch, spec, failure=launch.failure, reason=launch.reason)
        await self._move(launch, "failed")

    async def _move(self, launch: Launch, state: State, **fields: Any) -> None:  # Any: as `move` has them
        async with transaction(self._pool) as connection:
            moved = await launch_store.move(connection, launch, state, **fields)
        if moved and state != launch.state:
            log.info("%s: %s → %s %s", launch.cluster, launch.state, state, fields.get("reason") or "")

    async def _tell(self, kind: type[events.Launch], launch: Launch, spec: Spec, **fields: object) -> None:
        """Before the state that it tells of, so that no crash loses it; with the same message id each time."""
        event = kind(
            id=new_id(),
            time=datetime.now(UTC),
            launch_id=launch.id,
            deployment_id=launch.deployment_id,
            model=spec.model,
            cluster=launch.cluster,
            cloud=launch.candidate.cloud,
            region=launch.candidate.region,
            accelerator=launch.candidate.accelerator,
            spot=launch.candidate.spot,
            **fields,
        )
        subject = events.subject_of(event)
        await self._bus.publish(subject, encode(event), f"{subject}.{launch.id}")
