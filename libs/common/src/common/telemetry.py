"""What an operator reads: one JSON object a log line, and Prometheus metrics. Never a prompt, never a key."""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime

import msgspec
from prometheus_client import Histogram

BLOCKED = Histogram(
    "crosslogic_event_loop_blocked_seconds",
    "How long the event loop was blocked by its own doing",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(service: str, level: str = "INFO") -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("granian", "_granian", "nats", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


async def watch_loop(interval: float = 0.05, limit: float = 0.05) -> None:
    """Measure how long the event loop was blocked by its own doing; anything over `limit` seconds is logged.

    A busy machine makes a thread late too: the time that it waited for a processor is taken off.
    """
    waited = _waited_for_processor()
    while True:
        before = time.monotonic()
        await asyncio.sleep(interval)
        late = time.monotonic() - before - interval
        waited_before, waited = waited, _waited_for_processor()
        blocked = max(late - (waited - waited_before), 0)
        BLOCKED.observe(blocked)
        if blocked > limit:
            log.warning("event loop blocked for %.0f ms", blocked * 1000)


def _waited_for_processor() -> float:
    """Seconds that this thread was ready to run and did not (Linux: the second field of schedstat, nanoseconds)."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
