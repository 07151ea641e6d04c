"""BootService: converts, calls, converts back."""

from __future__ import annotations

from fleetcast.scheduler.v1 import boot_service_pb2
from fleetcast.scheduler.v1.boot_service_pb2_grpc import BootServiceServicer, add_BootServiceServicer_to_server
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.boot import convert
from fleetcast_scheduler.boot.boot import Boot
from fleetcast_scheduler.names import collection_name

_ROLES = {
    "DecideBoot": frozenset({Role.SERVICE}),
    "ReportBoot": frozenset({Role.SERVICE}),
    "OpenBoot": frozenset({Role.ADMINISTRATOR}),
    "CloseBoot": frozenset({Role.ADMINISTRATOR}),
    "GetBootState": frozenset({Role.ADMINISTRATOR}),
    "SetBootPolicy": frozenset({Role.ADMINISTRATOR}),
    "ListBoots": frozenset({Role.ADMINISTRATOR}),
}


class BootServicer(BootServiceServicer):
    """Offers `Boot` as BootService."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot

    async def DecideBoot(
        self, request: boot_service_pb2.DecideBootRequest, context: Context
    ) -> boot_service_pb2.DecideBootResponse:
        """Says what a machine is answered."""
        permit = await self._boot.decide(convert.asker_of(request.asker), with_ticket=request.with_ticket)
        return boot_service_pb2.DecideBootResponse(
            answer=convert.answer_number(permit.decision.answer),
            reason=permit.decision.reason,
            display_name=permit.decision.display_name,
            token=permit.token,
            ticket=permit.ticket,
        )

    async def ReportBoot(
        self, request: boot_service_pb2.ReportBootRequest, context: Context
    ) -> boot_service_pb2.ReportBootResponse:
        """Takes how far machines got."""
        self._boot.report(convert.reports_of(request))
        return boot_service_pb2.ReportBootResponse()

    async def OpenBoot(
        self, request: boot_service_pb2.OpenBootRequest, context: Context
    ) -> boot_service_pb2.OpenBootResponse:
        """Admits machines of a collection for a time."""
        window = await self._boot.open(
            collection_name(request.collection, "collection"), convert.duration_of(request), request.expected_count
        )
        return boot_service_pb2.OpenBootResponse(window=convert.window_message(window))

    async def CloseBoot(
        self, request: boot_service_pb2.CloseBootRequest, context: Context
    ) -> boot_service_pb2.CloseBootResponse:
        """Ends that."""
        window = await self._boot.close(collection_name(request.collection, "collection"))
        return boot_service_pb2.CloseBootResponse(window=convert.window_message(window) if window else None)

    async def GetBootState(
        self, request: boot_service_pb2.GetBootStateRequest, context: Context
    ) -> boot_service_pb2.GetBootStateResponse:
        """Says what is open."""
        return boot_service_pb2.GetBootStateResponse(
            windows=map(convert.window_message, self._boot.open_windows()),
            unknown_machines=convert.answer_number(self._boot.unknown_machines),
        )

    async def SetBootPolicy(
        self, request: boot_service_pb2.SetBootPolicyRequest, context: Context
    ) -> boot_service_pb2.SetBootPolicyResponse:
        """Sets what unknown machines are answered."""
        await self._boot.set_unknown_machines(convert.answer_of(request.unknown_machines, "unknown_machines"))
        return boot_service_pb2.SetBootPolicyResponse(
            unknown_machines=convert.answer_number(self._boot.unknown_machines)
        )

    async def ListBoots(
        self, request: boot_service_pb2.ListBootsRequest, context: Context
    ) -> boot_service_pb2.ListBootsResponse:
        """Returns a page of machines that asked."""
        page = paging.by_time(request)
        found = self._boot.reports(page.after, page.limit)
        shown, token = page.cut(found, lambda one: (one[0].heard_time, one[0].asker.mac_address))
        return boot_service_pb2.ListBootsResponse(
            boots=[convert.report_message(report, facts) for report, facts in shown], next_page_token=token
        )


def boot_service(boot: Boot) -> Service:
    """Returns the service, ready to be served."""
    return Service(
        add=add_BootServiceServicer_to_server,
        servicer=BootServicer(boot),
        full_name="fleetcast.scheduler.v1.BootService",
        roles=_ROLES,
    )
