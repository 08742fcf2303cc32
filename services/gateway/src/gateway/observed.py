"""What an operator sees of a request that has ended: metrics by OpenTelemetry's GenAI conventions, and a span.

Labels are bounded: a model is one that an operator has deployed, since others are refused before they get here. Spans
are made at the end, from times that are known anyway, so a request that is not sampled pays nothing for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter, Histogram

from common.events import UsageRecorded

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
DURATION = Histogram(
    "gen_ai_server_request_duration_seconds", "Start to end", ["model", "operation", "outcome"], buckets=SECONDS
)
FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds", "Start to first token", ["model", "operation"], buckets=SECONDS
)
PER_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "After the first token",
    ["model", "operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5),
)
TOKENS = Counter("gen_ai_client_token_usage", "Tokens billed", ["model", "token_type"])


class Observed:
    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    def __call__(self, record: UsageRecorded, traceparent: str | None) -> None:
        model, operation = record.model, record.endpoint
        duration = (record.ended_at - record.started_at).total_seconds()
        DURATION.labels(model, operation, record.outcome).observe(duration)
        if record.first_token_at is not None:
            first = (record.first_token_at - record.started_at).total_seconds()
            FIRST_TOKEN.labels(model, operation).observe(first)
            if record.output_tokens > 1:
                PER_TOKEN.labels(model, operation).observe((duration - first) / (record.output_tokens - 1))
        TOKENS.labels(model, "input").inc(record.input_tokens)
        TOKENS.labels(model, "cached").inc(record.cached_tokens)
        TOKENS.labels(model, "output").inc(record.output_tokens)
        if self._tracer is not None:
            self._span(self._tracer, record, traceparent)

    def _span(self, tracer: Tracer, record: UsageRecorded, traceparent: str | None) -> None:
        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
        span = tracer.start_span(
            f"{record.endpoint} {record.model}",
            context=parent,
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(record.started_at),
            attributes={
                "gen_ai.operation.name": record.endpoint,
                "gen_ai.request.model": record.model,
                "gen_ai.usage.input_tokens": record.input_tokens,
                "gen_ai.usage.output_tokens": record.output_tokens,
                "crosslogic.request.id": str(record.id),
                "crosslogic.tenant.id": str(record.tenant_id),
                "crosslogic.node.id": record.node_id or "",
                "crosslogic.outcome": record.outcome,
                "crosslogic.attempts": record.attempts,
            },
        )
        if record.first_token_at is not None:
            span.add_event("gen_ai.first_token", timestamp=_nanoseconds(record.first_token_at))
        span.end(_nanoseconds(record.ended_at))


@contextmanager
def tracing(endpoint: str | None, ratio: float, exporter: SpanExporter | None = None) -> Iterator[Tracer | None]:
    """A tracer that sends `ratio` of the traces to an OTLP endpoint, and all that callers sample; None without one."""
    if endpoint is None and exporter is None:
        yield None
        return
    provider = TracerProvider(
        resource=Resource.create({"service.name": "gateway"}), sampler=ParentBased(TraceIdRatioBased(ratio))
    )
    url = f"{(endpoint or '').rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=url)))
    try:
        yield provider.get_tracer("gateway")
    finally:
        provider.shutdown()


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
