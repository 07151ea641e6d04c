"""EnrolmentService: converts, calls, converts back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetcast.scheduler.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc
from fleetcast_kit.identity.peer import Role, current_identity, current_peer
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.enrolment import convert
from fleetcast_scheduler.enrolment.enrolment import Enrolment

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

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
            request_id=convert.request_id_of(request),
        )
        return enrolment_service_pb2.CreateEnrolmentTokenResponse(
            enrolment_token=convert.token_to_proto(record), token=text
        )

    async def ListEnrolmentTokens(
        self, request: enrolment_service_pb2.ListEnrolmentTokensRequest, context: Context
    ) -> enrolment_service_pb2.ListEnrolmentTokensResponse:
        """Lists tokens, newest first."""
        size = paging.page_size(request.page_size)
        position = paging.decode_page_token(request.page_token, float, str)
        after = (float(position[0]), str(position[1])) if position else None
        records = await self._enrolment.list_tokens(size + 1, after)
        response = enrolment_service_pb2.ListEnrolmentTokensResponse(
            enrolment_tokens=[convert.token_to_proto(record) for record in records[:size]]
        )
        if len(records) > size:
            last = records[size - 1]
            response.next_page_token = paging.encode_page_token([last.create_time.timestamp(), last.id])
        return response

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
            current_peer(), display_name=request.display_name, advertised_names=tuple(request.advertised_names)
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
