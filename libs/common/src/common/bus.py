"""NATS: the connection, the streams as declared in code, publishing, key-value state and request–reply.

The `nats` driver is imported here and in `common.consumer` only.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.errors import Error as JetStreamError

from common.errors import Unavailable

log = logging.getLogger(__name__)

DAY = 86_400.0
STREAMS: dict[str, tuple[tuple[str, ...], float]] = {
    "USAGE": (("usage.recorded.v1.>",), 35 * DAY),
    # versioned events only: `node.outcomes`, which gateways tell each second, is not kept
    "FLEET": (("node.*.v1", "scale.>", "launch.>"), 7 * DAY),
    "AUDIT": (("audit.>",), 35 * DAY),
    "DEAD": (("dead.>",), 90 * DAY),
}
"""Name → subjects and how long messages are kept, in seconds. `USAGE` keeps them so that it can be replayed."""

UNREACHABLE = (NatsError, JetStreamError, TimeoutError, ConnectionError, OSError)


class Bus:
    """One connection. Every method raises Unavailable when NATS cannot be reached or does not acknowledge in time."""

    def __init__(self, client: Client, replicas: int) -> None:
        self.client = client
        self.js: JetStreamContext = client.jetstream(timeout=5)
        self._replicas = replicas

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    async def declare_streams(self) -> None:
        for name, (subjects, age) in STREAMS.items():
            config = StreamConfig(
                name=name,
                subjects=list(subjects),
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                max_age=age,
                num_replicas=self._replicas,
                duplicate_window=120,
            )
            try:
                await self.js.add_stream(config)
            except APIError as error:
                if error.err_code != 10058:  # "stream name already in use with a different configuration"
                    raise Unavailable(f"stream {name} cannot be declared: {error}") from error
                await self.js.update_stream(config)

    async def publish(self, subject: str, body: bytes, message_id: str, timeout: float = 5.0) -> None:
        """Publish to JetStream; returns once the stream has stored it, or had it already."""
        try:
            await self.js.publish(subject, body, timeout=timeout, headers={"Nats-Msg-Id": message_id})
        except UNREACHABLE as error:
            raise Unavailable(f"{subject} was not acknowledged: {error!r}") from error

    async def park(self, subject: str, body: bytes, reason: str, consumer: str, message_id: str) -> None:
        """Keep what can never be handled on `dead.<subject>`, where operators find and replay it.

        A body that would not fit beside the headers is cut, and a header says so.
        """
        headers = {
            "Nats-Msg-Id": f"dead.{message_id}",
            "Crosslogic-Reason": " ".join(reason.split())[:500].encode("ascii", "replace").decode(),
            "Crosslogic-Consumer": consumer,
        }
        room = self.client.max_payload - 4096
        if len(body) > room:
            headers["Crosslogic-Cut"] = str(len(body))
        try:
            await self.js.publish(f"dead.{subject}", body[:room], headers=headers)
        except UNREACHABLE as error:
            raise Unavailable(f"{subject} was not parked: {error!r}") from error

    async def lag(self, stream: str, durable: str) -> int:
        """Messages of a stream that a durable consumer has not settled yet."""
        try:
            info = await self.js.consumer_info(stream, durable)
        except UNREACHABLE as error:
            raise Unavailable(f"consumer {durable} cannot be asked: {error!r}") from error
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def tell(self, subject: str, body: bytes) -> None:
        """Publish to whoever listens now; not stored."""
        try:
            await self.client.publish(subject, body)
        except UNREACHABLE as error:
            raise Unavailable(f"{subject} was not sent: {error!r}") from error

    async def listen(self, subject: str, heard: Callable[[bytes], None]) -> None:
        async def on_message(message: Msg) -> None:
            heard(message.data)

        await self.client.subscribe(subject, cb=on_message)

    async def ask(self, subject: str, body: bytes, timeout: float = 5.0) -> bytes:
        try:
            reply = await self.client.request(subject, body, timeout=timeout)
        except UNREACHABLE as error:
            raise Unavailable(f"{subject} did not answer: {error!r}") from error
        return bytes(reply.data)

    async def answer(self, subject: str, reply: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer requests, each in its own task; replicas share the work. `reply` must not raise."""
        running: set[asyncio.Task[None]] = set()

        async def respond(message: Msg) -> None:
            answer = await reply(message.data)
            with suppress(*UNREACHABLE):  # the asker times out and says so
                await message.respond(answer)

        async def on_message(message: Msg) -> None:
            task = asyncio.create_task(respond(message))
            running.add(task)
            task.add_done_callback(running.discard)

        await self.client.subscribe(subject, queue="owners", cb=on_message)
        await self.client.flush()

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        try:
            await (await self._bucket(bucket)).put(key, value)
        except UNREACHABLE as error:
            raise Unavailable(f"{bucket}/{key} was not stored: {error!r}") from error

    async def get(self, bucket: str, key: str) -> bytes | None:
        try:
            return (await (await self._bucket(bucket)).get(key)).value
        except KeyNotFoundError:
            return None
        except UNREACHABLE as error:
            raise Unavailable(f"{bucket}/{key} was not read: {error!r}") from error

    async def entry(self, bucket: str, key: str) -> tuple[bytes, int] | None:
        """The value and its revision, for `swap`."""
        try:
            found = await (await self._bucket(bucket)).get(key)
        except KeyNotFoundError:
            return None
        except UNREACHABLE as error:
            raise Unavailable(f"{bucket}/{key} was not read: {error!r}") from error
        return (found.value or b"", found.revision or 0)

    async def swap(self, bucket: str, key: str, value: bytes, revision: int | None) -> bool:
        """Put the value where the key is still at this revision, or has none; returns whether it was."""
        try:
            values = await self._bucket(bucket)
            await (values.create(key, value) if revision is None else values.update(key, value, revision))
        except KeyWrongLastSequenceError:
            return False
        except UNREACHABLE as error:
            raise Unavailable(f"{bucket}/{key} was not stored: {error!r}") from error
        return True

    async def remove(self, bucket: str, key: str) -> None:
        """Followers are not told."""
        try:
            await (await self._bucket(bucket)).delete(key)
        except UNREACHABLE as error:
            raise Unavailable(f"{bucket}/{key} was not removed: {error!r}") from error

    async def follow(self, bucket: str, key: str, told: asyncio.Event | None = None) -> AsyncIterator[bytes]:
        """The value now and each later one; of all keys for `>`. `told` is set once those that are there now were
        given. Ends with Unavailable when the watch is lost; call again."""
        try:
            watcher = await (await self._bucket(bucket)).watch(key)
            while True:
                with suppress(TimeoutError):
                    entry = await watcher.updates(timeout=5)  # type: ignore[no-untyped-call]  # nats-py
                    if entry is None and told is not None:
                        told.set()
                    if entry is not None and entry.value is not None:
                        yield entry.value
        except UNREACHABLE as error:
            raise Unavailable(f"{bucket}/{key} cannot be followed: {error!r}") from error

    async def _bucket(self, name: str) -> nats.js.kv.KeyValue:
        try:
            return await self.js.key_value(name)
        except BucketNotFoundError:
            return await self.js.create_key_value(KeyValueConfig(bucket=name, history=1, replicas=self._replicas))


@asynccontextmanager
async def connect(
    url: str, name: str, creds: str | None = None, replicas: int = 1, *, declare: bool = True
) -> AsyncIterator[Bus]:
    """Connect, waiting for a server that is still starting, and declare the streams unless they are only read."""

    async def on_error(error: Exception) -> None:
        # permission denials arrive only here
        log.warning("nats: %r", error)

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats: disconnected")

    async def on_reconnect() -> None:
        log.info("nats: connected again")
        if not declare:
            return
        with suppress(Unavailable, *UNREACHABLE):  # it may have come back without its disk
            await bus.declare_streams()

    client = await nats.connect(
        url,
        name=name,
        user_credentials=creds,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,
        connect_timeout=5,
        ping_interval=10,
        max_outstanding_pings=2,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
    )
    bus = Bus(client, replicas)
    try:
        if declare:
            await bus.declare_streams()
        yield bus
    finally:
        with suppress(*UNREACHABLE):
            await asyncio.wait_for(client.flush(1), 2)
        await client.close()


def encode(event: msgspec.Struct) -> bytes:
    return msgspec.json.encode(event)
