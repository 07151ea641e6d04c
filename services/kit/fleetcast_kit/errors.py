"""The errors a caller can act on, and their form on the wire: canonical code, ErrorInfo, BadRequest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "fleetcast"
"""The `domain` of every ErrorInfo."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata key of a serialized google.rpc.Status."""


class FleetcastError(Exception):
    """What went wrong, in one sentence for people, with a reason for programs."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        """The sentence for people: what is wrong, with which value, what to do."""
        self.reason = reason or self.code.name
        """UPPER_SNAKE; what a program may compare."""
        self.metadata = dict(metadata or {})
        """Values behind the sentence, such as a resource name."""


class InvalidArgumentError(FleetcastError):
    """A value is wrong, whatever the state of the system."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.field = field
        """Path of the wrong field in the request, such as `start_rules.min_clients`; empty if there is none."""
        self.violations = tuple(violations) or (((field, message),) if field else ())
        """Field and sentence of each thing that is wrong. Trailing metadata hold them: 3 kB in all at most."""


class NotFoundError(FleetcastError):
    """The named thing does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(FleetcastError):
    """The thing to be made exists."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPreconditionError(FleetcastError):
    """The system is not in a state that allows it; trying again alone does not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDeniedError(FleetcastError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnauthenticatedError(FleetcastError):
    """One side could not prove who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhaustedError(FleetcastError):
    """Something is full or used up."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class AbortedError(FleetcastError):
    """Somebody else was faster, or the call was cancelled: read again, then try again."""

    code = grpc.StatusCode.ABORTED


class UnavailableError(FleetcastError):
    """The other side cannot be reached now; trying later may help."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLossError(FleetcastError):
    """Stored or received content is damaged."""

    code = grpc.StatusCode.DATA_LOSS


class InternalError(FleetcastError):
    """A defect of the program; the log of the process that raised it says more."""

    code = grpc.StatusCode.INTERNAL


_CLASSES: tuple[type[FleetcastError], ...] = (
    NotFoundError,
    AlreadyExistsError,
    FailedPreconditionError,
    PermissionDeniedError,
    UnauthenticatedError,
    ResourceExhaustedError,
    AbortedError,
    UnavailableError,
    DataLossError,
    InternalError,
)
_CLASS_OF_CODE = {error.code: error for error in _CLASSES} | {
    grpc.StatusCode.OUT_OF_RANGE: FailedPreconditionError,
    grpc.StatusCode.UNIMPLEMENTED: FailedPreconditionError,
    grpc.StatusCode.CANCELLED: AbortedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
}


def to_status(error: FleetcastError) -> status_pb2.Status:
    """Returns the google.rpc.Status that carries `error`: its ErrorInfo, and a BadRequest if a field is named."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.append(_packed(info))
    if isinstance(error, InvalidArgumentError) and error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in error.violations
        ]
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    return status


def from_rpc_error(error: grpc.aio.AioRpcError, *, address: str = "") -> FleetcastError:
    """Returns the FleetcastError that the other side raised, or the one that says what came between.

    `address` is what was dialled; it goes into the sentence when nobody answered there.
    """
    info, bad_request = _details_of(error)
    message, reason, metadata = error.details() or "", info.reason, dict(info.metadata)
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        violations = [(violation.field, violation.description) for violation in bad_request.field_violations]
        field = violations[0][0] if violations else ""
        return InvalidArgumentError(message, field=field, reason=reason, metadata=metadata, violations=violations)
    if not info.reason:
        return _without_details(error.code(), message, address)
    return _CLASS_OF_CODE.get(error.code(), InternalError)(message, reason=reason, metadata=metadata)


def _details_of(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    """Returns the details in the trailing metadata; empty messages for those that are missing or damaged."""
    status, info, bad_request = status_pb2.Status(), error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    try:
        for key, value in error.trailing_metadata() or ():
            if key == DETAILS_KEY and isinstance(value, bytes):
                status.ParseFromString(value)
        for detail in status.details:
            _ = detail.Unpack(info) or detail.Unpack(bad_request)
    except DecodeError:
        return error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    return info, bad_request


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


_BROKEN_WHILE_SENDING = "Internal error from Core"
"""What gRPC says, with INTERNAL, where sending a message fails before it knows that the connection is gone."""


_NAME_UNKNOWN = ("errors resolving", "DNS resolution failed", "lookup failed", "Could not contact DNS servers")
"""What gRPC says, among much else, where a host name has no address."""

_CLOCKS_DIFFER = {
    "certificate is not yet valid": "is not valid yet",
    "certificate has expired": "has expired",
}
"""What TLS says of a certificate of the right authority at the wrong time, and what that means."""


def _without_details(code: grpc.StatusCode, details: str, address: str) -> FleetcastError:
    """Returns the error for a status that no fleetcast server wrote: the transport or a proxy did."""
    server = f"the server at {address}" if address else "the server"
    if code is grpc.StatusCode.INTERNAL and details == _BROKEN_WHILE_SENDING:
        code, details = grpc.StatusCode.UNAVAILABLE, "the connection broke while something was being sent"
    if code is grpc.StatusCode.UNAVAILABLE:
        for said, means in _CLOCKS_DIFFER.items():
            if said in details:
                return UnauthenticatedError(
                    f"the clock of this machine is wrong, or that of {server} is: this machine's says "
                    f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, and by that its certificate {means}; set the clock",
                    reason="CLOCK_WRONG",
                )
        if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verification Check failed" in details:
            return UnauthenticatedError(
                f"{server} did not prove that it belongs to this credential's authority under that name: "
                f"check the address, and that the credential is for that server ({_last(details)})",
                reason="SERVER_NOT_TRUSTED",
            )
        if "alert" in details.lower() and "SSL" in details:
            return UnauthenticatedError(
                f"{server} refused this credential: it is for another server, or expired by the server's clock "
                f"({_last(details)})",
                reason="CREDENTIAL_REFUSED",
            )
        if any(said in details for said in _NAME_UNKNOWN):
            return UnavailableError(
                f"cannot reach {server}: the name service of this machine does not know that name; check it, or use "
                "the server's address, on the server itself localhost",
                reason="UNKNOWN_HOST",
            )
        return UnavailableError(f"cannot reach {server}: check the address and that it runs ({_last(details)})")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnavailableError(f"{server} did not answer in time", reason="DEADLINE_EXCEEDED")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return FailedPreconditionError(
            f"{server} does not offer this call: it has another version or another part ({details})",
            reason="UNIMPLEMENTED",
        )
    return _CLASS_OF_CODE.get(code, InternalError)(details or f"{server} answered {code.name}", reason=code.name)


def _last(details: str) -> str:
    """Returns the innermost cause of gRPC's long connection sentence."""
    return details.rpartition("last error: ")[2].strip()
