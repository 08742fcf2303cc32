"""The launcher `sky`: a SkyPilot API server of our own, asked through its SDK, each call in a thread."""

import asyncio
import io
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import requests
import sky
from sky import exceptions
from sky.client import sdk

from common.deployments import Spec
from common.errors import Unavailable
from provisioner.launcher import Candidate, Failed, Failure, LogPart, Order, Outcome, Pending, Up
from provisioner.money import micro
from provisioner.task import PORT, task

T = TypeVar("T")
PATIENCE = 120.0
"""Seconds that the API server has for an answer; a launch answers at once and goes on by itself."""
LONGEST = 500
UNREACHABLE = (
    exceptions.ApiServerConnectionError,
    requests.exceptions.RequestException,
    exceptions.ClusterStatusFetchingError,
    ConnectionError,
    TimeoutError,
)


class Cloud:
    """`SKYPILOT_API_SERVER_ENDPOINT` says where it is; results travel as pickles, so it must be nobody else's."""

    async def candidates(self, spec: Spec) -> list[Candidate]:
        enabled = [str(cloud).lower() for cloud in await self._result(sdk.enabled_clouds)]
        clouds = [cloud for cloud in enabled if not spec.clouds or cloud in spec.clouds]
        found: list[Candidate] = []
        for choice, accelerator in enumerate(spec.accelerators):
            (name, count), *_ = accelerator.items()
            exact = f"^{re.escape(name)}$"
            ask = partial(sdk.list_accelerators, name_filter=exact, clouds=clouds, all_regions=True)
            listed = await self._result(ask)
            found += offered(choice, name, count, [info for infos in listed.values() for info in infos])
        return found

    async def find(self, cluster: str) -> str | None:
        found = await self._call(lambda: sdk.api_status(all_status=True, cluster_name=cluster))
        # the SDK drops the filter while it does not know the server's version: in each new thread
        launches = [one for one in found if one.cluster_name == cluster and one.name.endswith("launch")]
        return str(max(launches, key=lambda one: one.created_at).request_id) if launches else None

    async def launch(self, order: Order) -> str:
        """One try at one place: what to try next is ours to decide."""
        made = task(order)
        return str(await self._call(lambda: sdk.launch(made, cluster_name=order.cluster, retry_until_up=False)))

    async def poll(self, cluster: str, request_id: str) -> Outcome:
        found = await self._call(lambda: sdk.api_status(request_ids=[request_id], all_status=True))
        status = found[0].status if found else "LOST"
        if status in ("PENDING", "WAITING", "RUNNING"):
            return Pending()
        if status == "SUCCEEDED":
            return await self._endpoint(cluster)
        try:
            await self._call(lambda: sdk.get(request_id))  # type: ignore[arg-type]  # it is a text
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  the request's own, of any kind
            return failed(error)
        return Failed(f"the API server says {status}", "broken")

    async def _endpoint(self, cluster: str) -> Outcome:
        try:
            endpoints = await self._result(lambda: sdk.endpoints(cluster, PORT))
            address = endpoints.get(PORT) or endpoints.get(str(PORT))
        except exceptions.ClusterDoesNotExist:
            return Failed("its machine was gone as soon as it was there", "broken")
        except (ValueError, exceptions.ClusterNotUpError):  # a cloud that opens no ports by itself
            records = await self._result(lambda: sdk.status([cluster], all_users=True))
            address = f"{records[0]['handle'].head_ip}:{PORT}" if records else None
        if not address:
            return Failed("its machine has no address", "broken")
        return Up(address if "://" in address else f"http://{address}")

    async def observe(self) -> dict[str, bool]:
        records = await self._result(lambda: sdk.status(refresh=sky.StatusRefreshMode.FORCE, all_users=True))
        return {record["name"]: record["status"] != sky.ClusterStatus.STOPPED for record in records}

    async def down(self, cluster: str, request_id: str | None = None) -> None:
        """A request is cancelled first; that alone leaves its machine running."""
        request_id = request_id or await self.find(cluster)
        if request_id is not None:
            await self._result(lambda: sdk.api_cancel([request_id], silent=True))
        try:
            await self._result(lambda: sdk.down(cluster))
        except exceptions.ClusterDoesNotExist:
            return

    async def log(self, cluster: str, offset: int) -> LogPart:
        """Of the launch, then of its engine; nothing once the machine is gone."""
        output = io.StringIO()
        try:
            await self._call(lambda: sdk.tail_provision_logs(cluster, follow=False, output_stream=output))
            await self._call(lambda: sdk.tail_logs(cluster, None, follow=False, output_stream=output))
        except (exceptions.ClusterDoesNotExist, exceptions.ClusterNotUpError, exceptions.CommandError, RuntimeError):
            pass  # as far as it has come
        text = output.getvalue()
        return LogPart(text[offset:], max(len(text), offset))

    async def _result(self, ask: Callable[[], Any]) -> Any:  # Any: what each request returns
        """Ask, then wait for what comes of it."""
        return await self._call(lambda: sdk.get(ask()))

    async def _call(self, ask: Callable[[], T]) -> T:
        """Raises Unavailable when the server cannot be asked, else what SkyPilot raises."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(ask), PATIENCE)
        except UNREACHABLE as error:
            raise Unavailable(f"the SkyPilot API server cannot be asked: {_brief(error)}") from error


def offered(choice: int, name: str, count: int, infos: Iterable[Any]) -> list[Candidate]:
    """The cheapest machine of each region with exactly so many, on demand and as spot. `infos` are SkyPilot's."""
    found: dict[tuple[str, str, bool], Candidate] = {}
    for info in infos:
        for price, spot in ((info.price, False), (info.spot_price, True)):
            if info.accelerator_count != count or price is None or math.isnan(price):
                continue
            key = (str(info.cloud).lower(), str(info.region), spot)
            one = Candidate(
                cloud=key[0],
                region=key[1],
                accelerator=name,
                count=count,
                choice=choice,
                spot=spot,
                hourly_microusd=micro(price),
            )
            if key not in found or one.hourly_microusd < found[key].hourly_microusd:
                found[key] = one
    return list(found.values())


def failed(error: Exception) -> Failed:
    """There is none to be had, or else."""
    if isinstance(error, exceptions.ResourcesUnavailableError):
        history = [_brief(one) for one in error.failover_history or [] if isinstance(one, Exception)]
        kind: Failure = "capacity"
        return Failed("; ".join(history)[:LONGEST] or _brief(error), kind)
    return Failed(f"{type(error).__name__}: {_brief(error)}", "broken")


def _brief(error: BaseException) -> str:
    """In one line; SkyPilot colours what it says."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LONGEST]
