"""What an engine's `/metrics` says of its load and its work. Pure; names of vLLM 0.32."""

import re

from common.events import Counters
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


_WORK = re.compile(
    rb'^vllm:(prompt|generation)_tokens_total\{[^\n]*?model_name="([^"\n]{1,256})"[^\n]*\} ([0-9.eE+-]+)$', re.MULTILINE
)


def work(text: bytes) -> dict[str, Counters]:
    """By model, of all its engine processes together; empty: it does not count."""
    found: dict[str, dict[bytes, int]] = {}
    for kind, model, value in _WORK.findall(text):
        try:
            tokens = int(float(value))
        except (ValueError, OverflowError):
            continue
        of = found.setdefault(model.decode("utf-8", "replace"), {})
        of[kind] = of.get(kind, 0) + max(tokens, 0)
    return {model: Counters(of.get(b"prompt", 0), of.get(b"generation", 0)) for model, of in found.items()}
