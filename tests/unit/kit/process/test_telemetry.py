import pytest
from fleetcast_kit.process.telemetry import _exports, context_from, current_traceparent, tracer
from opentelemetry import trace
from opentelemetry.trace import SpanContext

from tests.support.spans import recorded_spans

_KNOWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def span_context(traceparent: str) -> SpanContext:
    return trace.get_current_span(context_from(traceparent)).get_span_context()


def test_a_stored_traceparent_becomes_the_parent_of_a_later_span() -> None:
    exporter = recorded_spans()
    with tracer(__name__).start_as_current_span("command") as command:
        stored = current_traceparent()
    with tracer(__name__).start_as_current_span("later", context=context_from(stored)):
        pass
    later = next(span for span in exporter.get_finished_spans() if span.name == "later")
    assert later.parent is not None
    assert later.parent.span_id == command.get_span_context().span_id


def test_outside_a_span_there_is_no_traceparent() -> None:
    assert current_traceparent() == ""


def test_a_traceparent_is_read_as_the_standard_says() -> None:
    found = span_context(_KNOWN)
    assert f"{found.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert found.is_remote


@pytest.mark.parametrize("text", ["", "x", _KNOWN[:-4], "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_an_unusable_traceparent_starts_a_trace_of_its_own(text: str) -> None:
    with tracer(__name__).start_as_current_span("surrounding"):
        assert not span_context(text).is_valid


@pytest.mark.parametrize(
    ("environment", "exported"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://localhost:4317"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_decide_what_is_exported(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], exported: bool
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _exports("TRACES") is exported
