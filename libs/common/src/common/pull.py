"""A pull consumer on the wire: messages are asked for ahead of need, and acknowledged many in one write.

nats-py's own `fetch` and `ack` cost 25 µs a message; a subscription that stays and one buffer of acknowledgements cost
a third. The protocol is in NATS ADR-13: a request names how many messages and until when, messages come to the inbox
of the request, and a status message tells that the rest will not come.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from common.bus import UNREACHABLE
from common.errors import Unavailable

EXPIRES = 5.0  # seconds that a request stays open when there is nothing to deliver
LINGER = 0.02  # seconds to wait for more messages after the first


class Pull:
    """Messages of one durable consumer, at most two batches ahead of what is being handled."""

    def __init__(self, client: Client, stream: str, durable: str, batch: int) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self.inbox = client.new_inbox()
        self._batch = batch
        self._arrived: deque[Msg] = deque()
        self._asked = 0  # messages that open requests may still bring
        self._answer_by = 0.0
        self._connection = client.stats["reconnects"]
        self._problem: str | None = None
        self.awake = asyncio.Event()

    async def take(self, stopping: asyncio.Event) -> list[Msg]:
        """The next messages, at least one; none once `stopping` is set.

        Raises Unavailable when the consumer is gone or does not answer.
        """
        while not self._arrived and not stopping.is_set():
            self.awake.clear()
            await self._ask()
            await self._wait(1.0)
        until = time.monotonic() + LINGER
        while len(self._arrived) < self._batch and not stopping.is_set() and (left := until - time.monotonic()) > 0:
            self.awake.clear()
            await self._wait(left)
        if stopping.is_set():
            return []
        messages = [self._arrived.popleft() for _ in range(min(self._batch, len(self._arrived)))]
        await self._ask()  # the next ones come while these are handled
        return messages

    async def heard(self, message: Msg) -> None:
        if message.reply:
            self._asked -= 1
            self._arrived.append(message)
            if len(self._arrived) in (1, self._batch):
                self.awake.set()
        else:
            self._told(message.headers or {})

    def _told(self, headers: dict[str, str]) -> None:
        """A status: 404 and 408 end a request without what it asked for. Anything else (503 nobody listens, 409 the
        consumer is deleted, has moved, or has too many requests) is a reason to begin again."""
        status = headers.get("Status", "")
        if status in ("404", "408"):
            self._asked -= int(headers.get("Nats-Pending-Messages", self._asked))
        else:
            self._problem = f"{status} {headers.get('Description', '')}"
        self.awake.set()

    async def _ask(self) -> None:
        if self._problem:
            raise Unavailable(f"{self._subject}: {self._problem}")
        now = time.monotonic()
        if self._connection != self._client.stats["reconnects"]:  # what was asked on the old connection is forgotten
            self._connection, self._asked = self._client.stats["reconnects"], 0
        if self._asked > 0 and now > self._answer_by:
            raise Unavailable(f"{self._subject} does not answer")
        if self._asked + len(self._arrived) >= self._batch or not self._client.is_connected:
            return
        self._asked = max(self._asked, 0) + self._batch
        self._answer_by = now + EXPIRES + 1
        request = msgspec.json.encode({"batch": self._batch, "expires": int(EXPIRES * 1e9)})
        await self._client.publish(self._subject, request, reply=self.inbox)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.awake.wait(), seconds)

    async def give_back(self) -> None:
        """Let another replica have what has not been taken, now rather than after the acknowledgement is overdue."""
        while self._arrived:
            await self._arrived.popleft().nak()


@asynccontextmanager
async def pulling(
    client: Client, stream: str, durable: str, batch: int, stopping: asyncio.Event
) -> AsyncIterator[Pull]:
    """What was not taken at the end is given back."""
    pull = Pull(client, stream, durable, batch)
    subscription = await client.subscribe(pull.inbox, cb=pull.heard, pending_msgs_limit=0, pending_bytes_limit=0)
    waker = asyncio.create_task(stopping.wait())
    waker.add_done_callback(lambda _: pull.awake.set())
    try:
        yield pull
    finally:
        waker.cancel()
        with suppress(*UNREACHABLE):  # then they come again once their acknowledgement is overdue
            # what is under way arrives; requests that nobody listens to any more are dropped by the server
            await asyncio.wait_for(subscription.drain(), 2)  # type: ignore[no-untyped-call]  # nats-py
            await pull.give_back()


async def acknowledge(client: Client, messages: Sequence[Msg]) -> None:
    """All of them in one write. Sent, not confirmed: one that is lost brings its message again."""
    if client.is_closed:
        raise Unavailable("the connection to NATS is closed")
    # `publish` would check, copy and wake the writer for each; this is the line that it sends
    await client._send_command(b"".join([f"PUB {message.reply} 0\r\n\r\n".encode() for message in messages]))
    await client._flush_pending()
