from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.scheduler.v1 import (
    audit_service_pb2,
    collection_service_pb2,
    deployment_pb2,
    deployment_service_pb2,
    machine_service_pb2,
    run_service_pb2,
    session_pb2,
    session_service_pb2,
)
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceStub
from fleetcast_kit.errors import FleetcastError, from_rpc_error
from fleetcast_kit.identity.grants import check_upload_grant
from fleetcast_kit.identity.peer import Role
from fleetcast_scheduler.deployments.app import DeploymentOptions
from fleetcast_sequence import canonical, parse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.deployment_actors import DEPLOYMENT_STATE, OUTCOME, STATE, Operator, RunningMachine
from tests.integration.scheduler_actors import (
    IMAGE,
    SEQUENCE,
    SEQUENCE_DIGEST,
    SIZE_BYTES,
    FakeMachine,
    FakeSender,
    Site,
    open_site,
)
from tests.integration.test_scheduler import TIMING
from tests.support.waiting import until


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with open_site(tmp_path, TIMING, database_url) as opened:
        yield opened


@pytest.fixture
def operator(site: Site) -> Operator:
    return Operator(site)


async def ready_machine(site: Site, name: str = "1", **fields: Any) -> RunningMachine:
    machine = RunningMachine(site, name)
    await machine.register(**fields)
    return machine


async def test_a_required_image_is_ordered_reported_and_closed(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1", variables={"room": "5"})
    await machine.attend()
    assert (await machine.hear("standby")).reason == "nothing is deployed to this machine"
    answer = await operator.deploy(variables={"language": "de"})
    name = answer.deployment.name
    order = await machine.hear("order")
    assert order.image == IMAGE
    assert [(image.image, image.size_bytes) for image in order.images] == [(IMAGE, SIZE_BYTES)]
    assert dict(order.collection_variables) == {"room": "5"}
    assert dict(order.deployment_variables) == {"language": "de"}
    assert 7190 <= order.remaining_seconds <= 7200
    assert order.attempt == 1
    assert order.display_name == "pc-1"
    sequence = await machine.progress(2, step_fraction=0.5)
    await machine.known(sequence)
    (run,) = await operator.runs(name)
    assert (run.state, run.step, run.step_name, run.step_fraction) == (STATE.STATE_RUNNING, 2, "step 2", 0.5)
    await machine.finish(order.run)
    assert (await machine.hear("closed")).run == order.run
    deployment = await operator.get(name)
    assert deployment.state == DEPLOYMENT_STATE.STATE_COMPLETED
    assert deployment.image == IMAGE
    assert deployment.summary.succeeded_count == deployment.summary.target_count == 1
    answer = await operator.deployments.GetRun(deployment_service_pb2.GetRunRequest(name=order.run))
    assert answer.run.state == STATE.STATE_SUCCEEDED
    assert answer.run.content == IMAGE


async def test_a_run_survives_the_death_of_the_scheduler(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    name = (await operator.deploy()).deployment.name
    order = await machine.hear("order")
    await site.kill()
    await site.start()
    run = await operator.run_when(name, STATE.STATE_LOST)
    assert run.name == order.run
    assert run.contact_time.seconds
    await machine.attend(order.run)
    again = await machine.hear("order")
    assert (again.run, again.image, again.attempt) == (order.run, order.image, 1)
    assert (await operator.run_when(name, STATE.STATE_RUNNING)).name == order.run
    await machine.finish(order.run)
    assert (await machine.hear("closed")).run == order.run


async def test_machines_of_a_deployment_share_a_session_that_says_who_is_missing(
    site: Site, operator: Operator
) -> None:
    runners = [await ready_machine(site, name) for name in ("1", "2", "3")]
    await operator.collect("1", "2", "3")
    template = deployment_pb2.SessionTemplate(start_rules=session_pb2.StartRules(min_clients=3))
    name = (await operator.deploy(session=template)).deployment.name
    receivers = []
    for runner in runners[:2]:
        await runner.attend()
        order = await runner.hear("order")
        receiver = FakeMachine(site, runner.name)
        await receiver.join(image=order.image, run=order.run)
        waiting = await receiver.hear("waiting")
        receivers.append((receiver, order))
    assert waiting.session
    session = await find_session(site, waiting.session)
    assert session.deployment == name
    assert session.expected_count == 3
    assert list(session.missing_machines) == ["machines/3"]
    assert "missing: pc-3" in session.waiting_reason
    await operator.deployments.SkipRuns(deployment_service_pb2.SkipRunsRequest(name=name, machines=["machines/3"]))
    sender = FakeSender(site)
    await sender.connect()
    for receiver, _ in receivers:
        assert (await receiver.hear("assignment")).session == waiting.session
        await receiver.finish()
        await receiver.hear("dismissal")
    session = await find_session(site, waiting.session)
    assert session.state == session_pb2.Session.STATE_COMPLETED
    for runner, (_, order) in zip(runners, receivers, strict=False):
        await runner.finish(order.run)
        await runner.hear("closed")
    assert (await operator.get(name)).state == DEPLOYMENT_STATE.STATE_COMPLETED
    await sender.disconnect()


async def find_session(site: Site, name: str) -> session_pb2.Session:
    answer = await site.operator().GetSession(session_service_pb2.GetSessionRequest(name=name))
    return answer.session  # type: ignore[no-any-return]


async def test_a_task_sequence_is_pinned_held_ordered_and_let_go(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    steps = (
        "steps: [{name: Keep, type: capture-image, with: {volume: c, image: '{{ series }}'}},"
        " {name: State, type: capture-user-state, with: {volume: c, paths: [home], image: 'of-{{ machine.serial }}'}}]"
    )
    variables = "variables: {series: {default: other}, key: {secret: true}}"
    site.sequences.canonical_form = canonical(parse(f"name: bare-metal\n{variables}\n{steps}\n"))
    site.sequences.uploads = ["reference"]
    given = {"series": "reference", "key": "hunter-hunter"}
    answer = await operator.deploy(task_sequence="taskSequences/bare-metal", variables=given)
    name = answer.deployment.name
    assert answer.deployment.variables == {"series": "reference", "key": "***"}, "an operator needs no secret back"
    assert answer.deployment.task_sequence == SEQUENCE
    assert site.sequences.held == {name: SEQUENCE}
    await machine.attend()
    order = await machine.hear("order")
    assert order.task_sequence == site.sequences.canonical_form
    assert order.task_sequence_digest == SEQUENCE_DIGEST
    assert order.deployment_variables == given
    assert order.images[0].is_wim
    for image, owned in {"reference": False, "of-S1": True}.items():
        granted = check_upload_grant(order.upload_grant, site.authority.certificate, machine="machines/1", image=image)
        assert granted is owned, image
    await machine.finish(order.run)
    await machine.hear("closed")
    await until(lambda: not site.sequences.held)


async def refusal(call: Any) -> FleetcastError:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_large_or_protected_collection_is_not_deployed_to_by_mistake(tmp_path: Path) -> None:
    async with open_site(tmp_path, TIMING, deployment_options=DeploymentOptions(confirmation_limit=1)) as site:
        operator = Operator(site)
        for name in ("1", "2"):
            await ready_machine(site, name)
        await operator.collect("1", "2")
        error = await refusal(operator.deploy())
        assert (error.reason, error.metadata["machine_count"]) == ("CONFIRMATION_REQUIRED", "2")
        assert (await refusal(operator.deploy(confirmed=3))).reason == "CONFIRMATION_REQUIRED"
        planned = (await operator.deploy(dry=True)).planned_runs
        assert [(one.display_name, one.targeted) for one in planned] == [("pc-1", True), ("pc-2", True)]
        request_id = "11111111-1111-1111-1111-111111111111"
        made = (await operator.deploy(confirmed=2, request_id=request_id)).deployment
        assert (await operator.deploy(confirmed=2, request_id=request_id)).deployment.name == made.name
        await operator.collect(name="precious", protected=True)
        assert (await refusal(operator.deploy(collection="collections/precious"))).reason == "PROTECTED"


async def test_operators_pause_resume_retry_and_cancel_once_for_each_request(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    name = (await operator.deploy()).deployment.name
    order = await machine.hear("order")
    for _ in range(2):
        await operator.deployments.PauseDeployment(
            deployment_service_pb2.PauseDeploymentRequest(name=name, request_id="p")
        )
    control = await machine.hear("control")
    assert (control.run, control.action) == (order.run, run_service_pb2.RunControl.ACTION_PAUSE)
    await machine.progress(1, paused=True)
    await operator.run_when(name, STATE.STATE_PAUSED)
    await operator.deployments.ResumeDeployment(deployment_service_pb2.ResumeDeploymentRequest(name=name))
    assert (await machine.hear("control")).action == run_service_pb2.RunControl.ACTION_RESUME
    await machine.finish(order.run, OUTCOME.OUTCOME_FAILED, step_name="Format", error="no disk", output_tail="mkfs: …")
    await machine.hear("closed")
    run = await operator.run_when(name, STATE.STATE_FAILED)
    assert (run.error, run.output_tail) == ("Format: no disk", "mkfs: …")
    answer = await operator.deployments.RetryRuns(deployment_service_pb2.RetryRunsRequest(name=name))
    assert [run.machine for run in answer.runs] == ["machines/1"]
    assert (await machine.hear("order")).attempt == 2
    await operator.deployments.CancelDeployment(deployment_service_pb2.CancelDeploymentRequest(name=name))
    assert (await machine.hear("control")).action == run_service_pb2.RunControl.ACTION_CANCEL
    await machine.finish(order.run.removesuffix("1") + "2", OUTCOME.OUTCOME_CANCELLED)
    await machine.hear("closed")
    assert (await operator.get(name)).state == DEPLOYMENT_STATE.STATE_CANCELLED
    assert [run.attempt for run in await operator.runs("machines/1")] == [2, 1]
    audit: Any = AuditServiceStub(site.channel(Role.ADMINISTRATOR, "operator"))
    entries = (await audit.ListAuditEntries(audit_service_pb2.ListAuditEntriesRequest(resource=name))).audit_entries
    actions = [entry.action.removeprefix("deployment.") for entry in entries]
    assert actions == ["cancel", "retry", "resume", "pause", "create"]


async def test_steps_and_the_log_are_kept_and_can_be_read(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    await operator.deploy()
    order = await machine.hear("order")
    step = deployment_pb2.StepRun(node="1", step_name="Format", attempt=1, start_time=Timestamp(seconds=100))
    await machine.say(step=step)
    step.outcome, step.end_time.seconds = OUTCOME.OUTCOME_SUCCEEDED, 130
    await machine.known(await machine.say(step=step))
    text = b"line\n" * 500_000
    await machine.upload_log(order.run, text[:1_000_000], text[1_000_000:])
    await machine.finish(order.run)
    await machine.hear("closed")
    answer = await operator.deployments.GetRun(deployment_service_pb2.GetRunRequest(name=order.run))
    assert list(answer.steps) == [step]
    assert answer.run.has_log
    read = operator.deployments.ReadRunLog(deployment_service_pb2.ReadRunLogRequest(name=order.run))
    assert b"".join([piece.data async for piece in read]) == text
    too_long = await refusal(machine.upload_log(order.run, *[bytes(1 << 20)] * 70))
    assert (too_long.reason, "upload its end alone" in too_long.message) == ("LOG_TOO_LONG", True)
    other = await ready_machine(site, "2")
    assert (await refusal(other.upload_log(order.run, b"x"))).reason == "RUN_NOT_FOUND"


async def test_remarks_are_kept_with_the_run_and_its_steps_through_a_kill(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    deployment = (await operator.deploy()).deployment
    order = await machine.hear("order")
    step = deployment_pb2.StepRun(node="1", step_name="Grow", attempt=1, remarks=["it could not grow"])
    await machine.known(await machine.say(step=step))
    await site.kill()
    await site.start()
    await machine.attend(order.run)
    await machine.hear("order")
    await machine.finish(order.run, remarks=[deployment_pb2.Remark(text="the log was not taken")])
    await machine.hear("closed")
    answer = await operator.deployments.GetRun(deployment_service_pb2.GetRunRequest(name=order.run))
    assert [(one.step_name, one.text) for one in answer.run.remarks] == [
        ("Grow", "it could not grow"),
        ("", "the log was not taken"),
    ]
    assert [list(one.remarks) for one in answer.steps] == [["it could not grow"]]
    summary = (await operator.get(deployment.name)).summary
    assert (summary.target_count, summary.succeeded_count, summary.remarked_count) == (1, 1, 1)


async def test_a_watch_shows_the_deployment_and_the_machine_until_all_is_over(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    name = (await operator.deploy()).deployment.name
    watch = operator.deployments.WatchDeployment(deployment_service_pb2.WatchDeploymentRequest(name=name))
    first = await watch.read()
    assert [run.state for run in first.runs] == [STATE.STATE_WAITING]
    assert first.deployment.waiting_reason == "its agent is not connected"
    machines = operator.deployments.WatchMachine(deployment_service_pb2.WatchMachineRequest(name="machines/1"))
    assert not (await machines.read()).machine.connected
    await machine.attend()
    order = await machine.hear("order")
    async with asyncio.timeout(5):
        while not (view := await machines.read()).machine.current_run:
            pass
    assert view.machine.connected
    assert view.machine.current_run == order.run
    await machine.finish(order.run)
    states = [run.state async for view in watch for run in view.runs]
    assert states[-1] == STATE.STATE_SUCCEEDED
    machines.cancel()


async def test_machines_that_are_not_there_are_woken_through_the_senders(site: Site, operator: Operator) -> None:
    sender = FakeSender(site)
    await sender.connect()
    machine = await ready_machine(site)
    registered = await machine.register(time_zone="Europe/Berlin")
    assert registered.time_zone == "Europe/Berlin"
    await operator.collect("1")
    await operator.deploy(wake=True)
    await until(lambda: sender.commands)
    assert list(sender.commands[0].wake.mac_addresses) == list(registered.inventory.mac_addresses)
    await sender.disconnect()


async def test_maintenance_windows_are_kept_and_a_wrong_one_is_refused(operator: Operator) -> None:
    window = collection_service_pb2.MaintenanceWindow(
        start="2026-12-01T22:00", duration=Duration(seconds=4 * 3600), recurrence="FREQ=WEEKLY;BYDAY=SA"
    )
    await operator.collect(maintenance_windows=[window])
    request = collection_service_pb2.GetCollectionRequest(name="collections/lab")
    found = (await operator.collections.GetCollection(request)).collection
    assert list(found.maintenance_windows) == [window]
    window.recurrence = "FREQ=SECONDLY"
    assert "recurrence" in (await refusal(operator.collect(name="other", maintenance_windows=[window]))).message


async def test_times_that_leave_nothing_to_begin_are_refused_with_both_values(site: Site, operator: Operator) -> None:
    await ready_machine(site)
    await operator.collect("1")
    early, late = deployment_pb2.ScheduleTime(), deployment_pb2.ScheduleTime()
    early.utc.FromJsonString("2100-01-01T02:00:00Z")
    late.utc.FromJsonString("2100-01-01T10:00:00Z")
    error = await refusal(operator.deploy(available_time=late, deadline_time=early))
    assert error.message == (
        "its deadline is 2100-01-01 02:00:00 UTC, before it is available at 2100-01-01 10:00:00 UTC: give a later "
        "deadline, or none to begin as soon as it is available"
    )
    for field in ("available_time", "deadline_time"):
        times: dict[str, Any] = {"expiry_time": early, field: late}
        message = (await refusal(operator.deploy(**times))).message
        assert "it expires at 2100-01-01 02:00:00 UTC" in message
        assert "is 2100-01-01 10:00:00 UTC: nothing could ever begin" in message
    past = deployment_pb2.ScheduleTime(utc=Timestamp(seconds=1_000_000_000))
    error = await refusal(operator.deploy(expiry_time=past))
    assert (error.reason, error.metadata["machine_count"]) == ("NEVER_BEGINS", "1")
    assert (await operator.deploy(available_time=early, deadline_time=early)).deployment.name


async def test_a_stop_stores_when_machines_that_are_there_were_heard(site: Site, operator: Operator) -> None:
    await ready_machine(site)
    machine = await ready_machine(site, "2")
    await machine.attend()
    await machine.hear("standby")
    assert site.app is not None
    pump = site.app.deployments.pump
    stored_at = pump.clock() + 420.0
    pump.clock = lambda: stored_at
    await pump.durable()
    stopped_at = stored_at + 0.1  # sooner than such times are stored again
    pump.clock = lambda: stopped_at
    await site.stop()
    await site.start()
    found = await operator.machines.GetMachine(machine_service_pb2.GetMachineRequest(name="machines/2"))
    assert found.machine.contact_time.ToMilliseconds() == pytest.approx(stopped_at * 1000, rel=0, abs=1)


async def test_a_run_keeps_the_variables_that_it_began_with(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    collection = await operator.collect("1", variables={"room": "5"})
    await machine.attend()
    await operator.deploy()
    order = await machine.hear("order")
    change = machine_service_pb2.UpdateMachineRequest(
        machine=machine_service_pb2.Machine(name="machines/1", variables={"owner": "me"})
    )
    change.update_mask.paths.append("variables")
    await operator.machines.UpdateMachine(change)
    edit = collection_service_pb2.UpdateCollectionRequest(
        collection=collection_service_pb2.Collection(name=collection, variables={"room": "6"})
    )
    edit.update_mask.paths.append("variables")
    await operator.collections.UpdateCollection(edit)
    await site.kill()
    await site.start()
    await machine.attend()
    again = await machine.hear("order")
    assert again.run == order.run
    assert dict(again.collection_variables) == {"room": "5"}
    assert not again.machine_variables
    await machine.finish(order.run, OUTCOME.OUTCOME_FAILED)
    await machine.hear("closed")
    await operator.deployments.RetryRuns(deployment_service_pb2.RetryRunsRequest(name=order.run.partition("/runs/")[0]))
    later = await machine.hear("order")
    assert dict(later.collection_variables) == {"room": "6"}
    assert dict(later.machine_variables) == {"owner": "me"}


async def test_a_restarted_scheduler_still_knows_whom_the_session_waits_for(tmp_path: Path) -> None:
    async with open_site(tmp_path, replace(TIMING, idle=60.0)) as site:
        operator = Operator(site)
        first, second = [await ready_machine(site, name) for name in ("1", "2")]
        await operator.collect("1", "2")
        template = deployment_pb2.SessionTemplate(start_rules=session_pb2.StartRules(min_clients=2))
        await operator.deploy(session=template)
        sender = FakeSender(site)
        await first.attend()
        order = await first.hear("order")
        receiver = FakeMachine(site, "1")
        await receiver.join(image=order.image, run=order.run)
        session = (await receiver.hear("waiting")).session
        await site.kill()
        await site.start()
        await sender.connect()
        await first.attend(order.run)
        assert (await first.hear("order")).run == order.run
        await receiver.join(image=order.image, run=order.run)
        waiting = await receiver.hear("waiting")
        assert waiting.session == session
        assert "missing: pc-2" in waiting.reason
        await second.attend()
        other = FakeMachine(site, "2")
        await other.join(image=order.image, run=(await second.hear("order")).run)
        assert (await receiver.hear("assignment")).session == session
        await sender.disconnect()


async def test_what_a_machine_reported_survives_a_kill_and_a_decision_too(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    name = (await operator.deploy()).deployment.name
    order = await machine.hear("order")
    await machine.known(await machine.progress(2))
    await operator.deployments.PauseDeployment(deployment_service_pb2.PauseDeploymentRequest(name=name))
    await site.kill()
    await site.start()
    assert (await operator.get(name)).state == DEPLOYMENT_STATE.STATE_PAUSED
    run = await operator.run_when(name, STATE.STATE_LOST)
    assert run.step == 2
    await machine.attend(order.run)
    await machine.hear("order")
    assert (await machine.hear("control")).action == run_service_pb2.RunControl.ACTION_PAUSE


async def test_only_machines_that_run_a_deployment_join_its_sessions(site: Site, operator: Operator) -> None:
    target = await ready_machine(site)
    await ready_machine(site, "2")
    await operator.collect("1")
    await target.attend()
    await operator.deploy()
    run = (await target.hear("order")).run
    inside = FakeMachine(site, "1")
    await inside.join(image=IMAGE, run=run)
    session = (await inside.hear("waiting")).session
    outside = FakeMachine(site, "2")
    await outside.join(session=session)
    assert (await refusal(outside.hear("waiting"))).reason == "RUN_NOT_OPEN"


async def test_a_removed_machine_is_told_to_register_anew_and_what_it_ran_is_over(
    site: Site, operator: Operator
) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await machine.attend()
    name = (await operator.deploy()).deployment.name
    run = (await machine.hear("order")).run
    await operator.machines.RemoveMachine(machine_service_pb2.RemoveMachineRequest(name="machines/1"))
    assert (await refusal(machine.hear("standby"))).reason == "MACHINE_NOT_FOUND"
    (over,) = await operator.runs(name)
    assert (over.state, over.error) == (STATE.STATE_CANCELLED, "an operator removed the machine")
    await machine.register()
    await machine.attend(run)
    assert (await machine.hear("control")).action == run_service_pb2.RunControl.ACTION_CANCEL


async def test_a_machine_may_only_receive_what_it_runs_now(site: Site, operator: Operator) -> None:
    machine = await ready_machine(site)
    await operator.collect("1")
    await operator.deploy()
    await machine.attend()
    order = await machine.hear("order")
    thief = FakeMachine(site, "2")
    await thief.join(image=order.image, run=order.run)
    with pytest.raises(grpc.aio.AioRpcError, match="does not run"):
        await thief.hear("waiting")
    unregistered = RunningMachine(site, "3")
    await unregistered.attend()
    with pytest.raises(grpc.aio.AioRpcError, match="has not registered"):
        await unregistered.hear("standby")
