"""A process from its start to its end by a signal: answers in flight, spans, log."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast_kit.errors import FailedPreconditionError, from_rpc_error
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.process.telemetry import tracer
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import run_until_signal
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.collector import TraceCollector
from tests.support.echo import EchoStub
from tests.support.spans import recorded_spans


class Process:
    """The process of `tests.support.served`, and a stub to call it."""

    def __init__(self, process: asyncio.subprocess.Process, stub: EchoStub) -> None:
        self.process = process
        self.stub = stub

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 20)).decode().strip()

    async def end(self) -> tuple[int, list[dict[str, str]]]:
        _, log = await asyncio.wait_for(self.process.communicate(), 20)
        return self.process.returncode or 0, [json.loads(line) for line in log.decode().splitlines()]


@asynccontextmanager
async def served(directory: Path, environment: Mapping[str, str]) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "tests.support.served", str(directory)]
    pipe = asyncio.subprocess.PIPE
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        *command, env={**inherited, **environment, "PYTHONPATH": "."}, stdout=pipe, stderr=pipe
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        async with open_channel(f"localhost:{port}", Credentials.load(directory / "administrator")) as channel:
            yield Process(process, EchoStub(channel))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[str, dict[str, list[Any]]]]:
    """Gives the endpoint of an OTLP receiver, and what it received by kind."""
    received: dict[str, list[Any]] = {"trace": [], "metrics": [], "logs": []}
    requests: dict[str, Any] = {
        "trace": ExportTraceServiceRequest,
        "metrics": ExportMetricsServiceRequest,
        "logs": ExportLogsServiceRequest,
    }
    server = grpc.aio.server()
    for kind, request_type in requests.items():

        async def export(request: Any, context: Any, kind: str = kind) -> bytes:
            received[kind].append(request)
            return b""

        handler: Any = grpc.unary_unary_rpc_method_handler(export, request_deserializer=request_type.FromString)
        service = f"opentelemetry.proto.collector.{kind}.v1.{kind.capitalize()}Service"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        await server.stop(0)


async def test_traces_metrics_and_logs_reach_a_collector_under_one_name(tmp_path: Path) -> None:
    async with receiving() as (endpoint, received):
        async with served(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) as running:
            await running.stub.Get(StringValue(), timeout=20)
            running.process.terminate()
            code, _ = await running.end()
        assert code == 0
    span = received["trace"][0].resource_spans[0].scope_spans[0].spans[0]
    assert span.name.endswith("/Get")
    metrics = [m for r in received["metrics"] for s in r.resource_metrics[0].scope_metrics for m in s.metrics]
    assert "calls" in [metric.name for metric in metrics]
    records = [m for r in received["logs"] for s in r.resource_logs[0].scope_logs for m in s.log_records]
    called = next(record for record in records if record.body.string_value.startswith("called"))
    assert called.body.string_value == "called with [secret]"
    assert (called.trace_id, called.span_id) == (span.trace_id, span.span_id)
    for resource in (
        received["trace"][0].resource_spans[0].resource,
        received["metrics"][0].resource_metrics[0].resource,
        received["logs"][0].resource_logs[0].resource,
    ):
        attributes = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
        assert attributes["service.name"] == "kit-test"
        assert attributes["service.version"]


def without_clock(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a log without what is said of a host's clock that no time service keeps: not all hosts have one."""
    return [entry for entry in log if not str(entry["message"]).startswith("this host's clock says")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_process_after_what_it_has_begun(
    tmp_path: Path, collector: TraceCollector, number: signal.Signals
) -> None:
    recorded_spans()
    async with served(tmp_path, collector.environment()) as running:
        with tracer(__name__).start_as_current_span("command") as command:
            watch = running.stub.Watch(StringValue(), timeout=20)
            await watch.read()
            call = asyncio.ensure_future(running.stub.Get(StringValue(), timeout=20))
            assert await running.line() == "called"
            running.process.send_signal(number)
            assert await call == StringValue(value="done")

        async def drain() -> None:
            async for _ in watch:
                pass

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drain()
        assert from_rpc_error(caught.value).reason == "SERVER_STOPPING"
        code, whole_log = await running.end()
        assert code == 0
    trace_id = trace.format_trace_id(command.get_span_context().trace_id)
    spans = collector.wait_for(lambda spans: len(spans) >= 2)
    assert {(span.service, span.name.rpartition("/")[2], span.trace_id) for span in spans} == {
        ("kit-test", "Get", trace_id),
        ("kit-test", "Watch", trace_id),
    }
    log = without_clock(whole_log)
    messages = [entry["message"] for entry in log]
    assert messages[0].startswith("listening on localhost:")
    assert messages[1:] == ["called with [secret]", "stopping"]
    assert log[1]["trace_id"] == trace_id


async def test_without_a_collector_nothing_is_said_about_it(tmp_path: Path) -> None:
    async with served(tmp_path, {}) as running:
        await running.stub.Get(StringValue(), timeout=20)
        running.process.terminate()
        code, log = await running.end()
    assert code == 0
    assert [entry["level"] for entry in without_clock(log)] == ["INFO"] * 3


async def test_a_collector_that_does_not_answer_delays_the_end_by_seconds_only(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    async with served(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused_tcp_port}"}) as running:
        await running.stub.Get(StringValue(), timeout=20)
        running.process.terminate()
        code, log = await running.end()
    assert code == 0
    assert "called with [secret]" in [entry["message"] for entry in log]


@pytest.fixture
def _same_signals_after() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_same_signals_after")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("ready", [False, True])
async def test_a_signal_ends_a_process_well_from_the_first_moment_of_its_start(
    number: signal.Signals, ready: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    async def start() -> str:
        os.kill(os.getpid(), number)
        if not ready:
            await asyncio.sleep(20)
        return "ready"

    async def stop() -> None:
        done.append("stopped")

    async with asyncio.timeout(10):
        await run_until_signal(start, stop)
    assert done == ["stopped"]
    assert capsys.readouterr().out == ("ready\n" if ready else "")


@pytest.mark.usefixtures("_same_signals_after")
@pytest.mark.parametrize("failure", [FailedPreconditionError("cannot start"), asyncio.CancelledError("a call was")])
async def test_what_a_failed_start_began_is_stopped(failure: BaseException) -> None:
    done = []

    async def start() -> str:
        raise failure

    async def stop() -> None:
        done.append("stopped")

    with pytest.raises(type(failure)):
        await run_until_signal(start, stop)
    assert done == ["stopped"]
