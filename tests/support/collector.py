"""A receiver of OpenTelemetry traces (OTLP over gRPC) that keeps the spans and shows them as trees.

In a test or a script: `with TraceCollector() as collector: run(..., env=os.environ | collector.environment())`. As a
process: `python -m tests.support.collector --output SPANS.json` prints its address, and at SIGTERM the trees.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | bool | int | float
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Span:
    """One span as it was exported."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    service: str
    """`service.name` of the process."""
    name: str
    kind: str
    """`server`, `client`, `internal`, `producer` or `consumer`."""
    start_seconds: float
    end_seconds: float
    error: str
    """The status message if the status is an error (`error` if it has none), else empty."""
    attributes: Mapping[str, Value]
    links: Sequence[tuple[str, str]]
    """Trace and span ids of linked spans."""

    @property
    def duration_seconds(self) -> float:
        """How long it took."""
        return self.end_seconds - self.start_seconds


class TraceCollector:
    """Listens on `listen` (a free port of the loopback by default) and keeps every span; a context manager."""

    def __init__(self, listen: str = "127.0.0.1:0") -> None:
        self._changed = threading.Condition()
        self._spans: dict[tuple[str, str], Span] = {}
        self._server = grpc.server(ThreadPoolExecutor(4, thread_name_prefix="collector"))
        self._server.add_generic_rpc_handlers(
            (
                _export_service("trace", "TraceService", ExportTraceServiceRequest.FromString, self._export),
                _export_service(
                    "metrics",
                    "MetricsService",
                    ExportMetricsServiceRequest.FromString,
                    lambda request: ExportMetricsServiceResponse(),
                ),
                _export_service(
                    "logs",
                    "LogsService",
                    ExportLogsServiceRequest.FromString,
                    lambda request: ExportLogsServiceResponse(),
                ),
            )
        )
        host = listen.rpartition(":")[0]
        self.address = f"{host}:{self._server.add_insecure_port(listen)}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(grace=1).wait()

    def environment(self) -> dict[str, str]:
        """Returns the variables that make a process export here, quickly."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_TRACES_SAMPLER": "always_on",
        }

    @property
    def spans(self) -> list[Span]:
        """Every span so far, by start."""
        with self._changed:
            return sorted(self._spans.values(), key=lambda span: span.start_seconds)

    def wait_for(self, condition: Callable[[list[Span]], bool], timeout_seconds: float = 10) -> list[Span]:
        """Returns the spans as soon as `condition` holds for them.

        Raises:
            TimeoutError: it did not hold in time; the message shows the trees.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not condition(spans := self.spans):
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise TimeoutError(f"the expected spans did not come within {timeout_seconds} s:\n{render(spans)}")
            return spans

    def _export(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        spans = list(_read_spans(request))
        with self._changed:
            self._spans.update({(span.trace_id, span.span_id): span for span in spans})
            self._changed.notify_all()
        return ExportTraceServiceResponse()


def render(spans: Iterable[Span]) -> str:
    """Returns the spans as one tree a trace: service, name, duration, error. A span without its parent is a root.

    Several children of one parent with equal service, name and no children are shown as one line with their number.
    """
    spans = sorted(spans, key=lambda span: span.start_seconds)
    known = {(span.trace_id, span.span_id) for span in spans}
    children: dict[tuple[str, str], list[Span]] = defaultdict(list)
    roots: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if (span.trace_id, span.parent_id) in known:
            children[span.trace_id, span.parent_id].append(span)
        else:
            roots[span.trace_id].append(span)
    lines = []
    for trace_id, trace_roots in roots.items():
        lines.append(f"trace {trace_id}")
        for index, span in enumerate(trace_roots):
            lines += _render_span([span], children, "", last=index == len(trace_roots) - 1)
    return "\n".join(lines)


def _render_span(
    alike: list[Span], children: Mapping[tuple[str, str], list[Span]], indent: str, *, last: bool
) -> list[str]:
    span = alike[0]
    count = f" x{len(alike)}" if len(alike) > 1 else ""
    seconds = sum(each.duration_seconds for each in alike)
    error = f"  ERROR {span.error}" if span.error else ""
    lines = [f"{indent}{'└─ ' if last else '├─ '}{span.service}: {span.name}{count}  {_duration(seconds)}{error}"]
    groups: dict[tuple[str, ...], list[Span]] = defaultdict(list)
    for child in children.get((span.trace_id, span.span_id), []):
        leaf = (child.trace_id, child.span_id) not in children
        groups[(child.service, child.name, child.error, "" if leaf else child.span_id)].append(child)
    for index, group in enumerate(groups.values()):
        lines += _render_span(group, children, indent + ("   " if last else "│  "), last=index == len(groups) - 1)
    return lines


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _export_service(
    package: str, service: str, parse: Callable[[bytes], Request], answer: Callable[[Request], Response]
) -> grpc.GenericRpcHandler:
    def export(request: Request, context: grpc.ServicerContext) -> Response:
        return answer(request)

    handler: grpc.RpcMethodHandler[Request, Response] = grpc.unary_unary_rpc_method_handler(
        export, request_deserializer=parse, response_serializer=lambda response: response.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(
        f"opentelemetry.proto.collector.{package}.v1.{service}", {"Export": handler}
    )


def _read_spans(request: ExportTraceServiceRequest) -> Iterable[Span]:
    for resource_spans in request.resource_spans:
        service = str(_attributes(resource_spans.resource.attributes).get("service.name", "unknown"))
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    service=service,
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    start_seconds=span.start_time_unix_nano / 1e9,
                    end_seconds=span.end_time_unix_nano / 1e9,
                    error=(span.status.message or "error") if failed else "",
                    attributes=_attributes(span.attributes),
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("string_value", "bool_value", "int_value", "double_value") else str(value)


def main() -> int:
    """Collect until SIGTERM or SIGINT, then print the trees."""
    parser = argparse.ArgumentParser(
        description="Collect OpenTelemetry traces until SIGTERM, then print them as trees."
    )
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the spans here, as JSON")
    arguments = parser.parse_args()
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with TraceCollector(arguments.listen) as collector:
        print(collector.address, flush=True)
        signal.sigwait(signals)
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(span) for span in collector.spans], indent=1))
    print(render(collector.spans))
    return 0


if __name__ == "__main__":
    sys.exit(main())
