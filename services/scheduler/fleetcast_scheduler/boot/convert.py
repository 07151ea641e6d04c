"""Starting from the network between proto and domain."""

from __future__ import annotations

from datetime import timedelta

from fleetcast.scheduler.v1 import boot_service_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.fields import enum_name, seconds_of, timestamp

from fleetcast_scheduler.boot.domain.decision import Answer, Asker
from fleetcast_scheduler.boot.domain.reports import BootReport
from fleetcast_scheduler.boot.domain.windows import BootWindow
from fleetcast_scheduler.machines.domain.fleet import MachineFacts
from fleetcast_scheduler.machines.domain.machine import mac_address

MAX_REPORTS_AT_ONCE = 1_000
_MAX_TEXT_LENGTH = 500
_MAX_UUIDS = 2


def asker_of(message: boot_service_pb2.BootAsker) -> Asker:
    """Returns who asks."""
    if len(message.smbios_uuids) > _MAX_UUIDS:
        raise InvalidArgumentError(
            f"{len(message.smbios_uuids)} UUIDs are too many for a machine", field="smbios_uuids"
        )
    return Asker(
        mac_address(message.mac_address),
        frozenset(uuid.lower()[:64] for uuid in message.smbios_uuids if uuid),
        message.firmware[:64],
        message.way[:64],
    )


def asker_message(asker: Asker) -> boot_service_pb2.BootAsker:
    """Returns who asked."""
    return boot_service_pb2.BootAsker(
        mac_address=asker.mac_address,
        smbios_uuids=sorted(asker.smbios_uuids),
        firmware=asker.firmware,
        way=asker.way,
    )


def answer_of(number: int, field: str) -> Answer:
    """Returns an answer."""
    name = enum_name(boot_service_pb2.BootAnswer, number, "BOOT_ANSWER_", field)
    if name == "UNSPECIFIED":
        raise InvalidArgumentError(f"{field} is not set", field=field)
    return Answer(name)


def answer_number(answer: Answer) -> boot_service_pb2.BootAnswer.ValueType:
    """Returns an answer as the API shows it."""
    return boot_service_pb2.BootAnswer.Value(f"BOOT_ANSWER_{answer.value}")


def reports_of(request: boot_service_pb2.ReportBootRequest) -> list[BootReport]:
    """Returns how far machines got."""
    if len(request.reports) > MAX_REPORTS_AT_ONCE:
        raise InvalidArgumentError(
            f"{len(request.reports)} reports at once are too many: at most {MAX_REPORTS_AT_ONCE}", field="reports"
        )
    return [
        BootReport(
            asker=asker_of(report.asker),
            stage=report.stage[:64],
            answer=answer_of(report.answer, "answer"),
            reason=report.reason[:_MAX_TEXT_LENGTH],
            begin_time=seconds_of(report.begin_time, "begin_time"),
            heard_time=seconds_of(report.heard_time, "heard_time"),
            likely_reason=report.likely_reason[:_MAX_TEXT_LENGTH],
            boot_service=report.boot_service[:_MAX_TEXT_LENGTH],
        )
        for report in request.reports
    ]


def report_message(report: BootReport, facts: MachineFacts | None) -> boot_service_pb2.BootReport:
    """Returns how far a machine got, with the record that it is taken for."""
    return boot_service_pb2.BootReport(
        asker=asker_message(report.asker),
        stage=report.stage,
        answer=answer_number(report.answer),
        reason=report.reason,
        begin_time=timestamp(report.begin_time),
        heard_time=timestamp(report.heard_time),
        likely_reason=report.likely_reason,
        boot_service=report.boot_service,
        machine=facts.name if facts else "",
        display_name=facts.display_name if facts else "",
    )


def duration_of(request: boot_service_pb2.OpenBootRequest) -> timedelta | None:
    """Returns for how long to open; None if that is not said."""
    return timedelta(seconds=seconds_of(request.duration, "duration")) if request.HasField("duration") else None


def window_message(window: BootWindow) -> boot_service_pb2.BootWindow:
    """Returns a window as the API shows it."""
    return boot_service_pb2.BootWindow(
        collection=window.collection,
        end_time=timestamp(window.end_time),
        expected_count=window.expected_count,
        admitted_machines=window.admitted,
    )
