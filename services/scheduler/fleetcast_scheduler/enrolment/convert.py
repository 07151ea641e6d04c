"""Enrolment between proto and domain."""

from __future__ import annotations

from datetime import timedelta

from fleetcast.scheduler.v1 import enrolment_service_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc.fields import timestamp

from fleetcast_scheduler.enrolment.domain import DEFAULT_LIFETIME, TokenRecord

_ROLES = {
    enrolment_service_pb2.ENROLMENT_ROLE_UNSPECIFIED: Role.MACHINE,
    enrolment_service_pb2.ENROLMENT_ROLE_MACHINE: Role.MACHINE,
    enrolment_service_pb2.ENROLMENT_ROLE_SENDER: Role.SENDER,
    enrolment_service_pb2.ENROLMENT_ROLE_SERVICE: Role.SERVICE,
}
_PROTO_ROLES = {
    Role.MACHINE: enrolment_service_pb2.ENROLMENT_ROLE_MACHINE,
    Role.SENDER: enrolment_service_pb2.ENROLMENT_ROLE_SENDER,
    Role.SERVICE: enrolment_service_pb2.ENROLMENT_ROLE_SERVICE,
}


def role_of(request: enrolment_service_pb2.CreateEnrolmentTokenRequest) -> Role:
    """Returns what the token's holders shall become."""
    role = _ROLES.get(request.role)
    if role is None:
        raise InvalidArgumentError(f"role {request.role} is not known to this server", field="role")
    return role


def lifetime_of(request: enrolment_service_pb2.CreateEnrolmentTokenRequest) -> timedelta:
    """Returns how long the token shall work."""
    if not request.HasField("lifetime"):
        return DEFAULT_LIFETIME
    try:
        return timedelta(seconds=request.lifetime.seconds, microseconds=request.lifetime.nanos // 1000)
    except OverflowError:
        raise InvalidArgumentError("the lifetime is out of range", field="lifetime") from None


def token_id_of(name: str) -> str:
    """Returns the id in a token's resource name."""
    collection, _, token_id = name.partition("/")
    if collection != "enrolmentTokens" or not token_id or "/" in token_id:
        raise InvalidArgumentError(f"{name!r} is not a token's name: write enrolmentTokens/ID", field="name")
    return token_id


def token_to_proto(record: TokenRecord) -> enrolment_service_pb2.EnrolmentToken:
    """Returns the token without its secret."""
    return enrolment_service_pb2.EnrolmentToken(
        name=record.name,
        role=_PROTO_ROLES[record.role],
        uses=record.uses,
        used_count=record.used_count,
        create_time=timestamp(record.create_time),
        expire_time=timestamp(record.expire_time),
        revoke_time=timestamp(record.revoke_time),
    )
