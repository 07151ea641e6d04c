"""Enrolment tokens as an administrator makes and lists them."""

from typing import Any

from fleetcast.scheduler.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.identity.peer import Role

from tests.support.trust import TrustedServer


async def create_token(server: TrustedServer, **fields: Any) -> enrolment_service_pb2.CreateEnrolmentTokenResponse:
    """Returns a new token of a server."""
    async with server.dial(Role.ADMINISTRATOR) as channel:
        request = enrolment_service_pb2.CreateEnrolmentTokenRequest(**fields)
        response: enrolment_service_pb2.CreateEnrolmentTokenResponse = (
            await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).CreateEnrolmentToken(request, timeout=10)
        )
        return response


async def list_tokens(server: TrustedServer) -> list[enrolment_service_pb2.EnrolmentToken]:
    """Returns the tokens of a server."""
    async with server.dial(Role.ADMINISTRATOR) as channel:
        response = await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).ListEnrolmentTokens(
            enrolment_service_pb2.ListEnrolmentTokensRequest(), timeout=10
        )
        return list(response.enrolment_tokens)


def holder_of(token: EnrolmentToken, authority: CertificateAuthority) -> Credentials:
    """Returns what the holder of a token connects with, to enrol."""
    key = certificates.generate_key()
    return Credentials(
        certificates.private_key_pem(key),
        certificates.certificate_pem(token.leaf(key.public_key())),
        authority.certificate_pem,
    )
