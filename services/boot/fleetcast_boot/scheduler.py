"""The scheduler, as the boot service calls it."""

from __future__ import annotations

import grpc
from fleetcast.scheduler.v1 import boot_service_pb2
from fleetcast.scheduler.v1.boot_service_pb2_grpc import BootServiceStub
from fleetcast_kit.errors import from_rpc_error
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.fields import timestamp

from fleetcast_boot.domain import Answer, Asker, Decision
from fleetcast_boot.progress import MachineProgress

DECIDE_SECONDS = 3.0
"""Firmware waits for about four."""

REPORT_SECONDS = 10.0

_ANSWERS = {
    boot_service_pb2.BOOT_ANSWER_INSTALL: Answer.INSTALL,
    boot_service_pb2.BOOT_ANSWER_KNOCK: Answer.KNOCK,
    boot_service_pb2.BOOT_ANSWER_LOCAL: Answer.LOCAL,
    boot_service_pb2.BOOT_ANSWER_SILENT: Answer.SILENT,
}
_NUMBERS = {answer: number for number, answer in _ANSWERS.items()}


class Scheduler:
    """Decides, and takes reports."""

    def __init__(self, address: str, credentials: Credentials, name: str) -> None:
        """`name` is what operators know this boot service by."""
        self._address = address
        self._name = name
        self._channel = open_channel(address, credentials)
        self._stub = BootServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    async def decide(self, asker: Asker, *, with_token: bool) -> Decision:
        """Returns what a machine is answered.

        Raises:
            FleetcastError: the scheduler cannot be asked, or refuses.
        """
        request = boot_service_pb2.DecideBootRequest(asker=_asker_message(asker), with_ticket=with_token)
        try:
            response = await self._stub.DecideBoot(request, timeout=DECIDE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address) from error
        return Decision(
            answer=_ANSWERS.get(response.answer, Answer.LOCAL),  # a newer scheduler's answer: in doubt the disk
            token=response.token,
            ticket=response.ticket,
            reason=response.reason,
            display_name=response.display_name,
        )

    async def report(self, machines: list[MachineProgress], now: float) -> None:
        """Tells how far machines got.

        Raises:
            FleetcastError: the scheduler cannot be told.
        """
        reports = [self._report_message(machine, now) for machine in machines]
        try:
            await self._stub.ReportBoot(boot_service_pb2.ReportBootRequest(reports=reports), timeout=REPORT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address) from error

    def _report_message(self, machine: MachineProgress, now: float) -> boot_service_pb2.BootReport:
        return boot_service_pb2.BootReport(
            asker=_asker_message(machine.asker),
            stage=machine.stage.words,
            answer=_NUMBERS[machine.answer],
            reason=machine.reason,
            begin_time=timestamp(machine.began_at),
            heard_time=timestamp(machine.heard_at),
            likely_reason=machine.likely_reason(now),
            boot_service=self._name,
        )


def _asker_message(asker: Asker) -> boot_service_pb2.BootAsker:
    return boot_service_pb2.BootAsker(
        mac_address=asker.mac_address,
        smbios_uuids=map(str, asker.uuids),
        firmware=str(asker.firmware),
        way=asker.way,
    )
