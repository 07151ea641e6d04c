"""OpenTelemetry of a process: traces, metrics and logs by OTLP where the standard OTEL_* variables name an endpoint.

Without an endpoint nothing is exported and nothing is said; spans exist all the same, so that log lines of all
processes carry the trace id of the command that caused them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from importlib import metadata

import grpc
from opentelemetry import _logs, context, metrics, propagate, trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor, filters
from opentelemetry.metrics import Meter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

FLUSH_SECONDS = 3.0
"""How long `stop` waits for a collector that does not answer."""

_logger = logging.getLogger(__name__)
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def start(service_name: str) -> None:
    """Starts the telemetry of this process under the name `service_name`; call it once, before the first span."""
    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    resource = Resource.create({SERVICE_NAME: name, SERVICE_VERSION: _version(service_name)})
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    trace.set_tracer_provider(tracer_provider)
    signals = [signal for signal in ("TRACES", "METRICS", "LOGS") if _exports(signal)]
    if not signals:
        return
    from fleetcast_kit.process import exporters  # noqa: PLC0415 - most processes export nothing, and start sooner without

    if "TRACES" in signals:
        exporters.export_traces(tracer_provider)
    if "METRICS" in signals:
        exporters.export_metrics(resource)
    if "LOGS" in signals:
        exporters.export_logs(resource)
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if protocol != "grpc":
        _logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %s; fleetcast exports by grpc, usually on port 4317", protocol)


def stop() -> None:
    """Sends what is buffered and ends the exporters; a collector that does not answer delays it by seconds. Blocks."""
    # The exporters' own time limits do not hold while they try again, so they work in threads that may be left behind.
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    shutdowns = [provider.shutdown for provider in providers if hasattr(provider, "shutdown")]
    threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
    deadline = time.monotonic() + FLUSH_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def tracer(name: str) -> Tracer:
    """Returns the tracer of the module `name`: `tracer(__name__)`."""
    return trace.get_tracer(name)


def meter(name: str) -> Meter:
    """Returns the meter of the module `name`: `meter(__name__)`."""
    return metrics.get_meter(name)


def current_traceparent() -> str:
    """Returns the W3C `traceparent` of the current span, to store or to send; empty outside any span."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def context_from(traceparent: str) -> context.Context:
    """Returns the context in which a span becomes the child of `traceparent`; the empty one for an unusable value."""
    return propagate.extract({"traceparent": traceparent} if traceparent else {}, context=context.Context())


def server_interceptor() -> grpc.aio.ServerInterceptor:
    """Returns the interceptor that makes a span of each call; the first of a server, or failed calls look well."""
    untraced = filters.any_of(filters.service_name("grpc.health.v1.Health"), filters.service_prefix("grpc.reflection."))
    interceptor: grpc.aio.ServerInterceptor = aio_server_interceptor(  # type: ignore[no-untyped-call]
        filter_=filters.negate(untraced)
    )
    return interceptor


def client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Returns the interceptors that make a span of each call and carry the trace on; the first of a channel."""
    return list(aio_client_interceptors())  # type: ignore[no-untyped-call]


def _exports(signal: str) -> bool:
    """Returns whether the environment asks for `signal`, by an endpoint and without turning it off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return bool(os.environ.get(_ENDPOINT) or os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


def _version(service_name: str) -> str:
    try:
        return metadata.version(service_name)
    except metadata.PackageNotFoundError:
        return metadata.version("fleetcast-kit")


logging.getLogger("opentelemetry.context").addFilter(
    # gRPC ends an abandoned stream's generator in another task; the span ends all the same.
    lambda record: record.getMessage() != "Failed to detach context"
)
