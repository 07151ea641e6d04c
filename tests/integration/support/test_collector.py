import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.collector import TraceCollector, render

EXPORT = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

provider = TracerProvider(resource=Resource.create({"service.name": "tester"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("tests")
with tracer.start_as_current_span("outer", attributes={"count": 3, "name": "x"}):
    for _ in range(2):
        with tracer.start_as_current_span("inner"):
            pass
    try:
        with tracer.start_as_current_span("broken"):
            raise ValueError("no such thing")
    except ValueError:
        pass
provider.shutdown()
"""


def export_to(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", EXPORT], check=True, env=os.environ | environment, timeout=30)


def test_spans_are_kept_and_shown_as_a_tree() -> None:
    with TraceCollector() as collector:
        export_to(collector.environment())
        spans = collector.wait_for(lambda spans: len(spans) == 4)
    outer = next(span for span in spans if span.name == "outer")
    assert outer.service == "tester"
    assert outer.attributes["count"] == 3
    assert {span.parent_id for span in spans} == {"", outer.span_id}
    first, root, *branches = render(spans).splitlines()
    assert first == f"trace {outer.trace_id}"
    assert root.startswith("└─ tester: outer  ")
    assert branches[0].startswith("   ├─ tester: inner x2  ")
    assert branches[1].startswith("   └─ tester: broken  ")
    assert branches[1].endswith("ERROR ValueError: no such thing")


def test_waiting_in_vain_shows_what_came() -> None:
    with TraceCollector() as collector:
        export_to(collector.environment())
        with pytest.raises(TimeoutError, match="tester: outer"):
            collector.wait_for(lambda spans: len(spans) > 4, timeout_seconds=0.2)


def test_the_collector_runs_as_a_process(tmp_path: Path) -> None:
    output = tmp_path / "spans.json"
    argv = [sys.executable, "-m", "tests.support.collector", "--output", str(output)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        export_to({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"})
        process.send_signal(signal.SIGTERM)
        shown = process.communicate(timeout=10)[0]
    assert process.returncode == 0
    assert "tester: outer" in shown
    assert len(json.loads(output.read_text())) == 4
