"""Batch consumption of a stream, and the one place that decides what becomes of a message.

| the handler | the message |
|---|---|
| returns | acknowledged |
| names it in `Rejected` | parked on `dead.<subject>` with the reason, then terminated; the others are handled again |
| raises Unavailable | comes back after a delay, without limit |
| raises anything else | handled alone to find the culprit, which gets `MAX_TRIES` tries, then is parked |

A bug here delays an event; it never loses one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from common import failpoint
from common.bus import UNREACHABLE, Bus
from common.errors import Unavailable
from common.pull import acknowledge, pulling

log = logging.getLogger(__name__)
Handler: TypeAlias = Callable[[Sequence[bytes]], Awaitable[None]]

MAX_TRIES = 8
PARKED = Counter("crosslogic_parked_events", "Events parked on dead.>", ["consumer"])
DELAYED = Counter("crosslogic_delayed_events", "Events that will be delivered again", ["consumer"])


class Rejected(Exception):
    """Some messages of a batch can never work: index → reason. Nothing of the batch was applied."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(f"{len(reasons)} rejected")
        self.reasons = reasons


class Consumer:
    """A durable consumer shared by all replicas of a service."""

    def __init__(
        self, bus: Bus, *, stream: str, durable: str, subject: str, handle: Handler, batch: int = 1000
    ) -> None:
        self._bus = bus
        self._stream, self._durable, self._subject = stream, durable, subject
        self._handle = handle
        self._batch = batch

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping` is set; a batch in hand is finished first."""
        while not stopping.is_set():
            try:
                await self._declare()
                async with pulling(self._bus.client, self._stream, self._durable, self._batch, stopping) as pull:
                    while messages := await pull.take(stopping):
                        failpoint.reached("taken")
                        await self._settle(messages)
            except (Unavailable, *UNREACHABLE) as error:
                log.warning("%s: consuming again after %r", self._durable, error)
                await asyncio.sleep(0.5)

    async def _declare(self) -> None:
        try:
            await self._bus.js.consumer_info(self._stream, self._durable)
        except NotFoundError:
            config = ConsumerConfig(
                durable_name=self._durable,
                ack_policy=AckPolicy.EXPLICIT,
                deliver_policy=DeliverPolicy.ALL,
                filter_subject=self._subject,
                ack_wait=30,
                max_deliver=-1,
                max_ack_pending=20_000,
            )
            await self._bus.js.add_consumer(self._stream, config)

    async def _settle(self, messages: Sequence[Msg]) -> None:
        try:
            await self._handle([message.data for message in messages])
        except Rejected as rejected:
            for index, reason in rejected.reasons.items():
                await self._park(messages[index], reason)
            rest = [message for index, message in enumerate(messages) if index not in rejected.reasons]
            if rest:
                await self._settle(rest)
        except Unavailable as error:
            log.warning("%s: %s events wait: %s", self._durable, len(messages), error)
            for message in messages:
                await self._delay(message)
        except Exception as error:
            if len(messages) > 1:
                for message in messages:
                    await self._settle([message])
                return
            log.exception("%s: handler failed", self._durable)
            if messages[0].metadata.num_delivered >= MAX_TRIES:
                await self._park(messages[0], f"failed {MAX_TRIES} times: {error!r}")
            else:
                await self._delay(messages[0])
        else:
            failpoint.reached("handled")
            await acknowledge(self._bus.client, messages)
            failpoint.reached("acknowledged")

    async def _delay(self, message: Msg) -> None:
        DELAYED.labels(self._durable).inc()
        await message.nak(delay=min(2**message.metadata.num_delivered * 0.25, 30))

    async def _park(self, message: Msg, reason: str) -> None:
        """Stored under `dead.` before it is terminated, so that a crash in between parks it twice rather than never."""
        sequence = message.metadata.sequence.stream
        id = f"{self._durable}.{self._stream}.{sequence}"
        await self._bus.park(message.subject, message.data, reason, self._durable, id)
        failpoint.reached("parked")
        await message.term()
        PARKED.labels(self._durable).inc()
        log.error("%s: parked %s #%s: %s", self._durable, message.subject, sequence, reason)
