"""Sends traces, metrics and logs by OTLP. It is a module of its own because importing it takes a third of a second."""

from __future__ import annotations

from opentelemetry import _logs, metrics
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from fleetcast_kit.process import logs


def export_traces(provider: TracerProvider) -> None:
    """Has the spans of a provider sent."""
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


def export_metrics(resource: Resource) -> None:
    """Has the metrics of this process sent, as those of `resource`."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource=resource, shutdown_on_exit=False))


def export_logs(resource: Resource) -> None:
    """Has the log of this process sent, as that of `resource`."""
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(provider)
    handler = _Handler(logger_provider=provider)
    # What the exporters say of a collector out of reach must not go to that collector.
    handler.addFilter(lambda record: not record.name.startswith("opentelemetry."))
    logs.add_handler(handler)


class _Handler(LoggingHandler):
    def flush(self) -> None:
        """Does nothing: the provider's shutdown sends what is buffered.

        `logging` flushes when the interpreter ends, where Python 3.12 allows no thread, and the base class starts one.
        """
