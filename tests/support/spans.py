"""The spans of this test process, in memory."""

from __future__ import annotations

from fleetcast_kit.process import telemetry
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

_exporter = InMemorySpanExporter()


def recorded_spans() -> InMemorySpanExporter:
    """Returns the exporter that every span of this process reaches from now on, empty."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        telemetry.start("fleetcast-kit")
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
    processors = provider._active_span_processor._span_processors
    if not any(getattr(processor, "span_exporter", None) is _exporter for processor in processors):
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
    _exporter.clear()
    return _exporter
