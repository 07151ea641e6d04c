"""EnrolmentService: converts, calls, converts back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetcast.scheduler.v1 import enrolment_service_pb2 as pb
from fleetcast.scheduler.v1 import enrolment_service_pb2_grpc as pb_grpc
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
        add=pb_grpc.add_EnrolmentServiceServicer_to_server,
        servicer=EnrolmentServicer(enrolment),
        full_name="fleetcast.scheduler.v1.EnrolmentService",
        roles=_ROLES,
    )


class EnrolmentServicer(pb_grpc.EnrolmentServiceServicer):
    """Offers `Enrolment` as EnrolmentService."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment

    async def CreateEnrolmentToken(  # noqa: N802 - the proto's name
        self, request: pb.CreateEnrolmentTokenRequest, context: Context
    ) -> pb.CreateEnrolmentTokenResponse:
        """Makes a token."""
        record, text = await self._enrolment.create_token(
            role=convert.role_of(request),
            uses=request.uses or 1,
            lifetime=convert.lifetime_of(request),
            creator=current_identity(),
            request_id=convert.request_id_of(request),
        )
        return pb.CreateEnrolmentTokenResponse(enrolment_token=convert.token_to_proto(record), token=text)

    async def ListEnrolmentTokens(  # noqa: N802 - the proto's name
        self, request: pb.ListEnrolmentTokensRequest, context: Context
    ) -> pb.ListEnrolmentTokensResponse:
        """Lists tokens, newest first."""
        size = paging.page_size(request.page_size)
        position = paging.decode_page_token(request.page_token, float, str)
        after = (float(position[0]), str(position[1])) if position else None
        records = await self._enrolment.list_tokens(size + 1, after)
        response = pb.ListEnrolmentTokensResponse(
            enrolment_tokens=[convert.token_to_proto(record) for record in records[:size]]
        )
        if len(records) > size:
            last = records[size - 1]
            response.next_page_token = paging.encode_page_token([last.create_time.timestamp(), last.id])
        return response

    async def RevokeEnrolmentToken(  # noqa: N802 - the proto's name
        self, request: pb.RevokeEnrolmentTokenRequest, context: Context
    ) -> pb.RevokeEnrolmentTokenResponse:
        """Ends a token."""
        record = await self._enrolment.revoke_token(convert.token_id_of(request.name), revoker=current_identity())
        return pb.RevokeEnrolmentTokenResponse(enrolment_token=convert.token_to_proto(record))

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.EnrolResponse:  # noqa: N802
        """Gives the holder of a token its identity."""
        enrolled = await self._enrolment.enrol(
            current_peer(), display_name=request.display_name, advertised_names=tuple(request.advertised_names)
        )
        return pb.EnrolResponse(
            name=enrolled.identity.name,
            certificate=enrolled.certificate_pem,
            authority_certificate=self._enrolment.authority.certificate_pem,
        )

    async def RenewCertificate(  # noqa: N802 - the proto's name
        self, request: pb.RenewCertificateRequest, context: Context
    ) -> pb.RenewCertificateResponse:
        """Gives a bearer a new certificate."""
        return pb.RenewCertificateResponse(certificate=self._enrolment.renew(current_peer(), request.public_key))
