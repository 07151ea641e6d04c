"""EnrolmentService: converts, calls, converts back."""

from __future__ import annotations

from fleetcast.scheduler.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc
from fleetcast_kit.identity.peer import Role, current_identity, current_peer
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.request_ids import checked_request_id
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.enrolment import convert
from fleetcast_scheduler.enrolment.enrolment import Enrolment

_ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})
_ROLES = {
    "CreateEnrolmentToken": _ADMINISTRATORS,
    "ListEnrolmentTokens": _ADMINISTRATORS,
    "RevokeEnrolmentToken": _ADMINISTRATORS,
    "Enrol": frozenset({Role.TOKEN_HOLDER}),
    "RenewCertificate": frozenset({Role.MACHINE, Role.SENDER, Role.SERVICE}),
}


def enrolment_service(enrolment: Enrolment) -> Service:
    """Returns the service for a server's list."""
    return Service(
        add=enrolment_service_pb2_grpc.add_EnrolmentServiceServicer_to_server,
        servicer=EnrolmentServicer(enrolment),
        full_name="fleetcast.scheduler.v1.EnrolmentService",
        roles=_ROLES,
    )


class EnrolmentServicer(enrolment_service_pb2_grpc.EnrolmentServiceServicer):
    """Offers `Enrolment` as EnrolmentService."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment

    async def CreateEnrolmentToken(
        self, request: enrolment_service_pb2.CreateEnrolmentTokenRequest, context: Context
    ) -> enrolment_service_pb2.CreateEnrolmentTokenResponse:
        """Makes a token."""
        record, text = await self._enrolment.create_token(
            role=convert.role_of(request),
            uses=request.uses or 1,
            lifetime=convert.lifetime_of(request),
            creator=current_identity(),
            request_id=checked_request_id(request.request_id),
        )
        return enrolment_service_pb2.CreateEnrolmentTokenResponse(
            enrolment_token=convert.token_to_proto(record), token=text
        )

    async def ListEnrolmentTokens(
        self, request: enrolment_service_pb2.ListEnrolmentTokensRequest, context: Context
    ) -> enrolment_service_pb2.ListEnrolmentTokensResponse:
        """Lists tokens, newest first."""
        page = paging.by_time(request)
        found = await self._enrolment.list_tokens(page.limit, page.after)
        shown, next_token = page.cut(found, lambda record: (record.create_time.timestamp(), record.id))
        return enrolment_service_pb2.ListEnrolmentTokensResponse(
            enrolment_tokens=map(convert.token_to_proto, shown), next_page_token=next_token
        )

    async def RevokeEnrolmentToken(
        self, request: enrolment_service_pb2.RevokeEnrolmentTokenRequest, context: Context
    ) -> enrolment_service_pb2.RevokeEnrolmentTokenResponse:
        """Ends a token."""
        record = await self._enrolment.revoke_token(convert.token_id_of(request.name), revoker=current_identity())
        return enrolment_service_pb2.RevokeEnrolmentTokenResponse(enrolment_token=convert.token_to_proto(record))

    async def Enrol(
        self, request: enrolment_service_pb2.EnrolRequest, context: Context
    ) -> enrolment_service_pb2.EnrolResponse:
        """Gives the holder of a token its identity."""
        enrolled = await self._enrolment.enrol(
            current_peer(),
            display_name=request.display_name,
            advertised_names=tuple(request.advertised_names),
            ticket=request.ticket,
        )
        return enrolment_service_pb2.EnrolResponse(
            name=enrolled.identity.name,
            certificate=enrolled.certificate_pem,
            authority_certificate=self._enrolment.authority.certificate_pem,
        )

    async def RenewCertificate(
        self, request: enrolment_service_pb2.RenewCertificateRequest, context: Context
    ) -> enrolment_service_pb2.RenewCertificateResponse:
        """Gives a bearer a new certificate."""
        return enrolment_service_pb2.RenewCertificateResponse(
            certificate=self._enrolment.renew(current_peer(), request.public_key)
        )
