"""Protobuf to what the agent works with in deployments, and back."""

from __future__ import annotations

import re

from fleetcast.scheduler.v1 import deployment_pb2, machine_service_pb2, run_service_pb2
from fleetcast_kit.errors import InternalError

from fleetcast_agent.deployments.orders import (
    Arrival,
    ControlAction,
    OfferedDeployment,
    PinnedImage,
    RunClosed,
    RunControl,
    RunEnd,
    RunOrder,
    RunProgress,
    Standby,
    StepOutcome,
    StepRun,
)
from fleetcast_agent.deployments.registering import MachineDescription
from fleetcast_agent.sequence.engine.records import Outcome

Word = Standby | RunOrder | RunControl | RunClosed
"""What the scheduler says."""

_RUN = re.compile(r"deployments/[A-Za-z0-9-]{1,63}/runs/[A-Za-z0-9-]{1,63}")
_ACTIONS = {
    run_service_pb2.RunControl.ACTION_PAUSE: ControlAction.PAUSE,
    run_service_pb2.RunControl.ACTION_RESUME: ControlAction.RESUME,
    run_service_pb2.RunControl.ACTION_CANCEL: ControlAction.CANCEL,
}
_RUN_OUTCOMES = {
    Outcome.SUCCEEDED: deployment_pb2.StepRun.OUTCOME_SUCCEEDED,
    Outcome.FAILED: deployment_pb2.StepRun.OUTCOME_FAILED,
    Outcome.CANCELLED: deployment_pb2.StepRun.OUTCOME_CANCELLED,
}
_STEP_OUTCOMES = {
    StepOutcome.RUNNING: deployment_pb2.StepRun.OUTCOME_UNSPECIFIED,
    StepOutcome.SUCCEEDED: deployment_pb2.StepRun.OUTCOME_SUCCEEDED,
    StepOutcome.FAILED: deployment_pb2.StepRun.OUTCOME_FAILED,
    StepOutcome.CANCELLED: deployment_pb2.StepRun.OUTCOME_CANCELLED,
    StepOutcome.INTERRUPTED: deployment_pb2.StepRun.OUTCOME_INTERRUPTED,
    StepOutcome.SKIPPED: deployment_pb2.StepRun.OUTCOME_SKIPPED,
}


def arrival_message(arrival: Arrival, sequence: int) -> run_service_pb2.AttendRequest:
    """Returns the first message of a stream."""
    message = run_service_pb2.Arrival(run=arrival.run, environment=arrival.environment)
    return run_service_pb2.AttendRequest(sequence=sequence, arrival=message)


def progress_message(progress: RunProgress, sequence: int) -> run_service_pb2.AttendRequest:
    """Returns a report of progress."""
    message = run_service_pb2.RunProgress(**vars(progress))
    return run_service_pb2.AttendRequest(sequence=sequence, progress=message)


def step_message(step: StepRun, sequence: int) -> run_service_pb2.AttendRequest:
    """Returns what is known of one attempt of a step."""
    message = deployment_pb2.StepRun(
        node=step.node,
        step_name=step.name,
        attempt=step.attempt,
        outcome=_STEP_OUTCOMES[step.outcome],
        message=step.message,
        remarks=step.remarks,
    )
    if step.start_time:
        message.start_time.FromNanoseconds(int(step.start_time * 1e9))
    if step.end_time:
        message.end_time.FromNanoseconds(int(step.end_time * 1e9))
    return run_service_pb2.AttendRequest(sequence=sequence, step=message)


def outcome_message(run: str, end: RunEnd, sequence: int) -> run_service_pb2.AttendRequest:
    """Returns how a run ended."""
    message = run_service_pb2.RunOutcome(
        run=run,
        outcome=_RUN_OUTCOMES[end.outcome],
        step_name=end.step,
        error=end.error,
        output_tail=end.output_tail,
        remarks=[deployment_pb2.Remark(step_name=remark.step, text=remark.text) for remark in end.remarks],
    )
    return run_service_pb2.AttendRequest(sequence=sequence, outcome=message)


def wanted_message(deployment: str, sequence: int) -> run_service_pb2.AttendRequest:
    """Returns the wish for an available deployment."""
    return run_service_pb2.AttendRequest(sequence=sequence, wanted_deployment=deployment)


def restarting_message(environment: str, sequence: int) -> run_service_pb2.AttendRequest:
    """Returns the word that the machine restarts."""
    restarting = run_service_pb2.Restarting(environment=environment)
    return run_service_pb2.AttendRequest(sequence=sequence, restarting=restarting)


def from_scheduler(message: run_service_pb2.AttendResponse) -> Word | None:
    """Returns what the scheduler says, or None for an acknowledgement alone.

    Raises:
        InternalError: it makes no sense.
    """
    match message.WhichOneof("message"):
        case "standby":
            offers = [OfferedDeployment(each.name, each.description) for each in message.standby.offered_deployments]
            return Standby(message.standby.reason, tuple(offers))
        case "order":
            return _order(message.order)
        case "control":
            control = message.control
            action = _ACTIONS.get(control.action)
            return RunControl(control.run, action, control.reason) if action is not None else None
        case "closed":
            return RunClosed(message.closed.run)
        case _:
            return None


def _order(message: run_service_pb2.RunOrder) -> RunOrder:
    if not _RUN.fullmatch(message.run):
        raise InternalError(f"the scheduler ordered the run {message.run!r}, and that is no name of one")
    return RunOrder(
        run=message.run,
        attempt=message.attempt,
        image=message.image,
        task_sequence=message.task_sequence.decode(errors="replace"),
        task_sequence_digest=message.task_sequence_digest,
        images=tuple(
            PinnedImage(image=pinned.image, size_bytes=pinned.size_bytes, is_wim=pinned.is_wim)
            for pinned in message.images
        ),
        collection_variables=dict(message.collection_variables),
        machine_variables=dict(message.machine_variables),
        deployment_variables=dict(message.deployment_variables),
        traceparent=message.traceparent,
        upload_grant=message.upload_grant,
        catalog_address=message.catalog_address,
        display_name=message.display_name,
    )


def register_request(machine: MachineDescription) -> machine_service_pb2.RegisterMachineRequest:
    """Returns the registration of this machine."""
    return machine_service_pb2.RegisterMachineRequest(
        display_name=machine.display_name,
        time_zone=machine.time_zone,
        inventory=machine_service_pb2.Inventory(
            smbios_uuid=machine.smbios_uuid,
            serial_number=machine.serial_number,
            mac_addresses=machine.mac_addresses,
            manufacturer=machine.manufacturer,
            model=machine.model,
            architecture=machine.architecture,
            firmware=machine.firmware,
            processor=machine.processor,
            processor_count=machine.processor_count,
            memory_bytes=machine.memory_bytes,
            disks=[
                machine_service_pb2.Disk(
                    device=disk.device,
                    model=disk.model,
                    serial_number=disk.serial_number,
                    size_bytes=disk.size_bytes,
                    sector_size_bytes=disk.sector_size_bytes,
                )
                for disk in machine.disks
            ],
        ),
    )


def held_reason(response: machine_service_pb2.RegisterMachineResponse) -> str | None:
    """Returns why an operator must approve the machine; None if it takes part."""
    machine = response.machine
    if machine.state == machine_service_pb2.Machine.STATE_HELD:
        return machine.held_reason or "an operator must approve it"
    return None
