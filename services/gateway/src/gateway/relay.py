"""An engine's event stream to its client, written from the engine's callback: no task wakes up for a chunk."""

from datetime import UTC, datetime

from gateway.live import Live
from gateway.reply import Reply
from gateway.sse import ReplyStream
from gateway.upstream import Exchange


class Relay:
    """Called with the bytes as they come. Nothing is sent before the first event, so that the status can change."""

    __slots__ = ("_exchange", "_live", "_reply", "_stream")

    def __init__(self, live: Live, stream: ReplyStream, exchange: Exchange, reply: Reply) -> None:
        self._live = live
        self._stream = stream
        self._exchange = exchange
        self._reply = reply

    def __call__(self, data: bytes) -> bool:
        """True once the engine has said all that matters."""
        stream, client = self._stream, self._reply.client
        part = stream.feed(data)
        if part and stream.events:
            live = self._live
            if live.stream is not stream:
                live.stream, live.first_token_at = stream, live.first_token_at or datetime.now(UTC)
            self._reply.part(part)
            if client.stalled_since is not None:
                client.paused_by = self._exchange.connection.pause()
        return stream.done or stream.error is not None
