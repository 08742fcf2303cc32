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
    "How late the event loop woke a sleeper",
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
    """Measure how long the event loop is blocked; anything over `limit` seconds is logged."""
    cpu = time.process_time()
    while True:
        before = time.monotonic()
        await asyncio.sleep(interval)
        late = time.monotonic() - before - interval
        used, cpu = time.process_time() - cpu, time.process_time()
        BLOCKED.observe(max(late, 0))
        if late > limit and used > limit:  # a process that the kernel did not run has not blocked itself
            log.warning("event loop blocked for %.0f ms (%.0f ms of CPU)", late * 1000, used * 1000)
