"""Prometheus text with vLLM's names and labels, for those metrics that a gateway or scheduler reads."""

from simulator.counters import Histogram
from simulator.engine import Engine


def text(engine: Engine, model: str, started: float) -> bytes:
    """The body of `GET /metrics`; every sample is labelled with the first served name, as vLLM does."""
    own = f'engine="0",model_name="{model}"'
    counters = engine.counters
    page = _Page(own, started)
    page.gauge("num_requests_running", "Number of requests in model execution batches.", engine.running)
    page.gauge("num_requests_waiting", "Number of requests waiting to be processed.", engine.waiting)
    page.gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", engine.kv_usage)
    page.counter(
        "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", counters.prefix_queries
    )
    page.counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", counters.prefix_hits)
    page.counter("num_preemptions", "Cumulative number of preemption from the engine.", 0)
    page.counter("prompt_tokens", "Number of prefill tokens processed.", counters.prompt_tokens)
    page.counter("generation_tokens", "Number of generation tokens processed.", counters.generation_tokens)
    page.family(
        "request_success",
        "Count of successfully processed requests.",
        [(f'engine="0",finished_reason="{reason}",model_name="{model}"', n) for reason, n in counters.finished.items()],
    )
    page.family(
        "admission_rejections",
        "Number of admission attempts rejected by a queue limit, by reason.",
        [
            (f'model_name="{model}",reason="max_num_queued_reqs"', counters.rejections),
            (f'model_name="{model}",reason="max_num_queued_tokens"', 0),
        ],
    )
    page.histogram(
        "time_to_first_token_seconds", "Histogram of time to first token in seconds.", counters.first_token, model
    )
    return page.body()


class _Page:
    def __init__(self, labels: str, started: float) -> None:
        self._labels = labels
        self._started = started
        self._lines: list[str] = []

    def _declare(self, name: str, help_: str, kind: str) -> None:
        self._lines += [f"# HELP vllm:{name} {help_}", f"# TYPE vllm:{name} {kind}"]

    def gauge(self, name: str, help_: str, value: float) -> None:
        self._declare(name, help_, "gauge")
        self._lines.append(f"vllm:{name}{{{self._labels}}} {float(value)}")

    def counter(self, name: str, help_: str, value: float) -> None:
        self.family(name, help_, [(self._labels, value)])

    def family(self, name: str, help_: str, samples: list[tuple[str, float]]) -> None:
        self._declare(f"{name}_total", help_, "counter")
        self._lines += [f"vllm:{name}_total{{{labels}}} {float(value)}" for labels, value in samples]
        self._declare(f"{name}_created", help_, "gauge")
        self._lines += [f"vllm:{name}_created{{{labels}}} {self._started}" for labels, _ in samples]

    def histogram(self, name: str, help_: str, histogram: Histogram, model: str) -> None:
        self._declare(name, help_, "histogram")
        total = 0
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            total += count
            self._lines.append(f'vllm:{name}_bucket{{engine="0",le="{bound}",model_name="{model}"}} {float(total)}')
        self._lines.append(f"vllm:{name}_count{{{self._labels}}} {float(total)}")
        self._lines.append(f"vllm:{name}_sum{{{self._labels}}} {histogram.sum}")
        self._declare(f"{name}_created", help_, "gauge")
        self._lines.append(f"vllm:{name}_created{{{self._labels}}} {self._started}")

    def body(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()
