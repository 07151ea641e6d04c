"""Deployments and runs of the API as domain objects, and back; fields are checked here."""

from __future__ import annotations

import re

from fleetcast.scheduler.v1 import deployment_pb2, deployment_service_pb2, session_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import duration, enum_name, timestamp

from fleetcast_scheduler.deployments import schedule_convert as schedule
from fleetcast_scheduler.deployments.domain.deployment import (
    Deployment,
    Purpose,
    Rerun,
    SessionTemplate,
)
from fleetcast_scheduler.deployments.domain.planning import PlannedRun
from fleetcast_scheduler.deployments.domain.run import Run, StepRun
from fleetcast_scheduler.deployments.domain.secret_variables import public_variables
from fleetcast_scheduler.machines.convert import MAX_TEXT_LENGTH
from fleetcast_scheduler.machines.domain.machine import check_variables
from fleetcast_scheduler.names import collection_name, image_name
from fleetcast_scheduler.senders.convert import rate_message, rate_of, slow_policy_message, slow_policy_of
from fleetcast_scheduler.sessions import convert, policy_convert
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules

_TASK_SEQUENCE = re.compile(r"taskSequences/[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@sha256:[0-9a-f]{64})?")


def deployment_of(message: deployment_pb2.Deployment) -> Deployment:
    """Returns the deployment that a request drafts, without a name; its content is as written.

    Raises:
        InvalidArgumentError: a field is wrong, or two do not fit together.
    """
    match message.WhichOneof("content"):
        case "image":
            content = image_name(message.image, "deployment.image")
        case "task_sequence":
            content = _task_sequence_name(message.task_sequence)
        case _:
            raise InvalidArgumentError(
                "the deployment deploys nothing: give it an image or a task sequence", field="deployment.content"
            )
    purpose = enum_name(deployment_pb2.Deployment.Purpose, message.purpose, "PURPOSE_", "deployment.purpose")
    rerun = enum_name(deployment_pb2.Deployment.Rerun, message.rerun, "RERUN_", "deployment.rerun")
    draft = Deployment(
        name="",
        create_time=0.0,
        collection=collection_name(message.collection, "deployment.collection"),
        content=content,
        description=message.description[:MAX_TEXT_LENGTH],
        purpose=Purpose.AVAILABLE if purpose == "UNSPECIFIED" else Purpose(purpose),
        rerun=Rerun.IF_FAILED if rerun == "UNSPECIFIED" else Rerun(rerun),
        available_time=schedule.time_of(message, "available_time"),
        deadline_time=schedule.time_of(message, "deadline_time"),
        expiry_time=schedule.time_of(message, "expiry_time"),
        max_run_seconds=schedule.max_run_seconds_of(message),
        ignore_maintenance_windows=message.ignore_maintenance_windows,
        wake=message.wake,
        phases=schedule.phases_of(message),
        variables=check_variables(dict(message.variables)),
        session=SessionTemplate(
            rules=policy_convert.start_rules_of(message.session.start_rules),
            rate=rate_of(message.session.rate),
            admission=policy_convert.admission_of(message.session.admission),
            priority=policy_convert.priority_of(message.session.priority),
            slow_policy=slow_policy_of(message.session.slow_policy),
            site=message.session.site[: convert.MAX_SITE_LENGTH],
            any_site=message.session.any_site,
        ),
    )
    _check_purpose(draft)
    _check_order(draft)
    return draft


def deployment_message(deployment: Deployment) -> deployment_pb2.Deployment:
    """Returns a deployment as the API shows it."""
    counts, template = deployment.counts, deployment.session
    message = deployment_pb2.Deployment(
        name=deployment.name,
        description=deployment.description,
        collection=deployment.collection,
        purpose=deployment_pb2.Deployment.Purpose.Value(f"PURPOSE_{deployment.purpose}"),
        available_time=schedule.time_message(deployment.available_time),
        deadline_time=schedule.time_message(deployment.deadline_time),
        expiry_time=schedule.time_message(deployment.expiry_time),
        rerun=deployment_pb2.Deployment.Rerun.Value(f"RERUN_{deployment.rerun}"),
        max_run_time=duration(deployment.max_run_seconds),
        ignore_maintenance_windows=deployment.ignore_maintenance_windows,
        wake=deployment.wake,
        phases=[schedule.phase_message(phase) for phase in deployment.phases],
        current_phase=deployment.current_phase,
        variables=public_variables(deployment),
        session=deployment_pb2.SessionTemplate(
            start_rules=policy_convert.start_rules_message(template.rules),
            rate=rate_message(template.rate),
            admission=_admission_message(template.admission),
            priority=template.priority,
            slow_policy=slow_policy_message(template.slow_policy),
            site=template.site,
            any_site=template.any_site,
        ),
        state=deployment_pb2.Deployment.State.Value(f"STATE_{deployment.state}"),
        summary=deployment_pb2.DeploymentSummary(
            target_count=deployment.target_count,
            waiting_count=counts["waiting"],
            running_count=counts["running"],
            succeeded_count=counts["succeeded"],
            failed_count=counts["failed"],
            unknown_count=counts["unknown"],
            remarked_count=counts["remarked"],
        ),
        create_time=timestamp(deployment.create_time),
        end_time=timestamp(deployment.end_time),
        revision=deployment.revision,
        etag=str(deployment.edit_count),
        waiting_reason=deployment.waiting_reason,
    )
    setattr(message, "image" if deployment.is_image else "task_sequence", deployment.content)
    return message


def run_message(run: Run, content: str) -> deployment_pb2.Run:
    """Returns a run as the API shows it; `content` is what its deployment deploys."""
    progress = run.progress
    return deployment_pb2.Run(
        name=run.name,
        machine=run.machine,
        display_name=run.display_name,
        state=deployment_pb2.Run.State.Value(f"STATE_{run.state}"),
        reason=run.reason,
        attempt=run.attempt,
        step=progress.step,
        step_count=progress.step_count,
        step_name=progress.step_name,
        step_fraction=progress.step_fraction,
        error=run.error,
        output_tail=run.output_tail,
        start_time=timestamp(run.start_time),
        end_time=timestamp(run.end_time),
        contact_time=timestamp(run.contact_time),
        has_log=run.has_log,
        session=progress.session if run.state.begun else "",
        revision=run.revision,
        content=content,
        remarks=[deployment_pb2.Remark(step_name=remark.step_name, text=remark.text) for remark in run.remarks],
    )


def step_message(step: StepRun) -> deployment_pb2.StepRun:
    """Returns a step as the API shows it."""
    return deployment_pb2.StepRun(
        node=step.node,
        step_name=step.step_name,
        attempt=step.attempt,
        outcome=deployment_pb2.StepRun.Outcome.Value(f"OUTCOME_{step.outcome}"),
        message=step.message,
        remarks=step.remarks,
        start_time=timestamp(step.start_time),
        end_time=timestamp(step.end_time),
    )


def planned_run_message(planned: PlannedRun) -> deployment_service_pb2.PlannedRun:
    """Returns what a deployment means for one machine, as the API shows it."""
    return deployment_service_pb2.PlannedRun(
        machine=planned.machine,
        display_name=planned.display_name,
        targeted=planned.targeted,
        reason=planned.reason,
        phase=planned.phase,
        start_time=planned.start_time,
    )


def _admission_message(rules: AdmissionRules) -> session_pb2.AdmissionRules:
    return session_pb2.AdmissionRules(
        until_time=timestamp(rules.until_time),
        late_policy=session_pb2.AdmissionRules.LatePolicy.Value(f"LATE_POLICY_{rules.late_policy}"),
        end_policy=session_pb2.AdmissionRules.EndPolicy.Value(f"END_POLICY_{rules.end_policy}"),
        max_participants=rules.max_participants,
    )


def _task_sequence_name(name: str) -> str:
    if not _TASK_SEQUENCE.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is not the name of a task sequence: write taskSequences/NAME or taskSequences/NAME@sha256:HEX",
            field="deployment.task_sequence",
        )
    return name


def _check_purpose(draft: Deployment) -> None:
    if draft.purpose is Purpose.REQUIRED:
        return
    for field, given in (
        ("deadline_time", draft.deadline_time is not None),
        ("wake", draft.wake),
        ("phases", bool(draft.phases)),
    ):
        if given:
            raise InvalidArgumentError(
                f"{field} is for required deployments, and this one is available: leave it out, or require it",
                field=f"deployment.{field}",
            )


def _check_order(draft: Deployment) -> None:
    """Compares the times that can be compared: two instants, or two local times."""
    available, deadline, expiry = draft.available_time, draft.deadline_time, draft.expiry_time
    if available is not None and deadline is not None and available.after(deadline):
        raise InvalidArgumentError(
            f"its deadline is {deadline}, before it is available at {available}: give a later deadline, or none to "
            "begin as soon as it is available",
            field="deployment.deadline_time",
        )
    for word, time in (("available time", available), ("deadline", deadline)):
        if time is not None and expiry is not None and (time == expiry or time.after(expiry)):
            raise InvalidArgumentError(
                f"it expires at {expiry}, and its {word} is {time}: nothing could ever begin; give a later expiry",
                field="deployment.expiry_time",
            )
