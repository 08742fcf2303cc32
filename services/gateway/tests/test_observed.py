"""A request that has ended is seen in the metrics, and, where traces are sent, as a span of its caller's trace."""

from datetime import UTC, datetime, timedelta

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from common.events import UsageRecorded
from common.ids import new_id
from gateway.observed import Observed, tracing

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = SAMPLED[:-2] + "00"


def record(model: str) -> UsageRecorded:
    return UsageRecorded(
        id=new_id(),
        time=START,
        tenant_id=new_id(),
        environment_id=new_id(),
        api_key_id=new_id(),
        model=model,
        endpoint="chat.completions",
        streamed=True,
        outcome="completed",
        usage_source="engine",
        input_tokens=20,
        cached_tokens=16,
        output_tokens=11,
        started_at=START,
        first_token_at=START + timedelta(milliseconds=300),
        ended_at=START + timedelta(milliseconds=1300),
    )


def test_time_to_first_token_time_per_token_and_tokens_are_measured() -> None:
    Observed()(record("m1"), None)
    labels = {"model": "m1", "operation": "chat.completions"}

    def value(name: str, more: dict[str, str] | None = None) -> float | None:
        return REGISTRY.get_sample_value(name, {**labels, **(more or {})})

    assert value("gen_ai_server_time_to_first_token_seconds_sum") == 0.3
    assert value("gen_ai_server_time_per_output_token_seconds_sum") == 0.1
    assert value("gen_ai_server_request_duration_seconds_sum", {"outcome": "completed"}) == 1.3
    tokens = [
        REGISTRY.get_sample_value("gen_ai_client_token_usage_total", {"model": "m1", "token_type": kind})
        for kind in ("input", "cached", "output")
    ]
    assert tokens == [20, 16, 11]


def test_a_span_is_part_of_the_callers_trace_and_only_when_sampled() -> None:
    exporter = InMemorySpanExporter()
    with tracing(None, 0.0, exporter) as tracer:
        observed = Observed(tracer)
        observed(record("m2"), SAMPLED)
        observed(record("m2"), NOT_SAMPLED)
        observed(record("m2"), None)
    (span,) = exporter.get_finished_spans()
    assert span.context.trace_id == int(SAMPLED[3:35], 16)
    assert span.parent is not None
    assert span.parent.span_id == int(SAMPLED[36:52], 16)
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 1_300_000_000
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.output_tokens"] == 11
    assert [event.name for event in span.events] == ["gen_ai.first_token"]


def test_without_an_endpoint_there_is_no_tracer() -> None:
    with tracing(None, 1.0) as tracer:
        assert tracer is None
