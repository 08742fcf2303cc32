"""What an engine's `/metrics` says of its load. Pure; names of vLLM 0.32."""

import re

from common.routing import Load

_LINE = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^\n]*\})? ([0-9.eE+-]+)", re.MULTILINE
)


def load(text: bytes) -> Load | None:
    """Requests of all its models together, and the fullest cache; None: it says nothing of the kind."""
    found: dict[bytes, list[float]] = {}
    for name, value in _LINE.findall(text):
        try:
            found.setdefault(name, []).append(float(value))
        except ValueError:
            continue
    if not found:
        return None
    running, waiting = (sum(found.get(name, ())) for name in (b"num_requests_running", b"num_requests_waiting"))
    cache = max(found.get(b"kv_cache_usage_perc", [0.0]))
    return Load(max(0, round(running)), max(0, round(waiting)), round(min(max(cache, 0.0), 1.0), 3))
