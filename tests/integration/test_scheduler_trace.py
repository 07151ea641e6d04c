from __future__ import annotations

from pathlib import Path

from fleetcast.scheduler.v1 import session_pb2, session_service_pb2
from fleetcast_kit.process import telemetry
from opentelemetry.sdk.trace import ReadableSpan

from tests.integration.scheduler_actors import FakeMachine, FakeSender, open_site
from tests.support.spans import recorded_spans


async def test_one_trace_leads_from_the_operator_over_the_session_to_sender_and_machines(tmp_path: Path) -> None:
    spans = recorded_spans()
    async with open_site(tmp_path) as site:
        sender = FakeSender(site)
        await sender.connect()
        with telemetry.tracer("test").start_as_current_span("fleetcast session create") as command:
            request = session_service_pb2.CreateSessionRequest(
                image="images/win11", start_rules=session_pb2.StartRules(min_clients=1)
            )
            await site.operator().CreateSession(request)
        trace_id = command.get_span_context().trace_id
        name = (await site.operator().ListSessions(session_service_pb2.ListSessionsRequest())).sessions[0].name
        first, late = FakeMachine(site, "1"), FakeMachine(site, "2")
        await first.join(session=name)
        assignment = await first.hear("assignment")
        await late.join(session=name)
        await late.hear("assignment")
        (order,) = sender.running.values()

    ours = [span for span in spans.get_finished_spans() if span.context.trace_id == trace_id]
    by_name: dict[str, ReadableSpan] = {span.name: span for span in ours}
    session, start, admit = by_name["session"], by_name["start transmission"], by_name["admit"]
    assert start.parent is not None
    assert start.parent.span_id == session.context.span_id
    assert admit.parent is not None
    assert admit.parent.span_id == session.context.span_id
    assert order.traceparent.split("-")[1:3] == [f"{trace_id:032x}", f"{start.context.span_id:016x}"]
    assert assignment.traceparent.split("-")[1:3] == [f"{trace_id:032x}", f"{session.context.span_id:016x}"]
    ancestors = {span.context.span_id: span.parent.span_id for span in ours if span.parent is not None}
    above = session.context.span_id
    while above in ancestors:
        above = ancestors[above]
    assert above == command.get_span_context().span_id


async def test_the_first_machine_begins_the_trace_of_an_automatic_session(tmp_path: Path) -> None:
    recorded_spans()
    async with open_site(tmp_path) as site:
        sender = FakeSender(site)
        await sender.connect()
        machine = FakeMachine(site, "1")
        with telemetry.tracer("test").start_as_current_span("fleetcast-agent receive") as receive:
            await machine.join(image="images/win11")
        assignment = await machine.hear("assignment")
    assert assignment.traceparent.split("-")[1] == f"{receive.get_span_context().trace_id:032x}"
