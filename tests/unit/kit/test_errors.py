import grpc
import pytest
from fleetcast_kit import errors
from fleetcast_kit.errors import (
    DETAILS_KEY,
    AbortedError,
    FailedPreconditionError,
    FleetcastError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
    to_status,
)
from google.rpc import error_details_pb2
from grpc.aio import AioRpcError, Metadata

CLASSES = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, FleetcastError)]


def answered(error: FleetcastError) -> AioRpcError:
    metadata = Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    return AioRpcError(error.code, Metadata(), metadata, error.message)


def transport_error(code: grpc.StatusCode, details: str = "") -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not FleetcastError])
def test_every_error_survives_the_wire(kind: type[FleetcastError]) -> None:
    error = kind("chunk 7 is damaged", reason="CHUNK_DAMAGED", metadata={"chunk": "7"})
    found = from_rpc_error(answered(error))
    assert type(found) is kind
    assert (found.message, found.reason, found.metadata) == (error.message, error.reason, error.metadata)


def test_each_error_has_a_code_of_its_own_and_a_reason_by_default() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(CLASSES)
    assert NotFoundError("images/x does not exist").reason == "NOT_FOUND"


def test_a_field_travels_as_a_bad_request() -> None:
    error = InvalidArgumentError("uses is -1", field="enrolment_token.uses")
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in to_status(error).details)
    assert bad_request.field_violations[0].field == "enrolment_token.uses"
    found = from_rpc_error(answered(error))
    assert isinstance(found, InvalidArgumentError)
    assert found.field == "enrolment_token.uses"


def test_several_wrong_fields_travel_together() -> None:
    violations = (("source", "1:2: steps: is missing"), ("source", "3:1: colour: is not known here"))
    found = from_rpc_error(answered(InvalidArgumentError("the file has 2 problems", violations=violations)))
    assert isinstance(found, InvalidArgumentError)
    assert (found.field, found.violations) == ("source", violations)


def test_an_error_without_a_field_carries_no_bad_request() -> None:
    assert len(to_status(InvalidArgumentError("nothing fits")).details) == 1


def test_a_server_out_of_reach_is_named_with_what_to_do() -> None:
    details = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: connect failed: Connection refused"
    )
    found = from_rpc_error(transport_error(grpc.StatusCode.UNAVAILABLE, details), address="localhost:1")
    assert isinstance(found, UnavailableError)
    assert found.message == (
        "cannot reach the server at localhost:1: check the address and that it runs "
        "(UNKNOWN: ipv4:127.0.0.1:1: connect failed: Connection refused)"
    )


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "errors resolving images.lan:7443: [address lookup failed for images.lan:7443: Domain name not found]",
            UnavailableError,
            "UNKNOWN_HOST",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "x CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK",
            UnauthenticatedError,
            "CLOCK_WRONG",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "x CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            UnauthenticatedError,
            "CLOCK_WRONG",
        ),
        (grpc.StatusCode.UNAVAILABLE, "x CERTIFICATE_VERIFY_FAILED y", UnauthenticatedError, "SERVER_NOT_TRUSTED"),
        (
            grpc.StatusCode.UNAVAILABLE,
            "SSL_ERROR_SSL: tlsv1 alert unknown ca",
            UnauthenticatedError,
            "CREDENTIAL_REFUSED",
        ),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", UnavailableError, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", UnavailableError, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "of the server", InternalError, "INTERNAL"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", UnavailableError, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", FailedPreconditionError, "UNIMPLEMENTED"),
        (grpc.StatusCode.CANCELLED, "", AbortedError, "CANCELLED"),
        (grpc.StatusCode.UNKNOWN, "surprise", InternalError, "UNKNOWN"),
        (grpc.StatusCode.NOT_FOUND, "", NotFoundError, "NOT_FOUND"),
        (grpc.StatusCode.INVALID_ARGUMENT, "no", InvalidArgumentError, "INVALID_ARGUMENT"),
    ],
)
def test_a_status_that_no_fleetcast_server_wrote_is_explained(
    code: grpc.StatusCode, details: str, kind: type[FleetcastError], reason: str
) -> None:
    found = from_rpc_error(transport_error(code, details))
    assert type(found) is kind
    assert found.reason == reason
    assert found.message


def test_damaged_details_are_passed_over() -> None:
    damaged = AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), Metadata((DETAILS_KEY, b"\xff\xff")), "gone")
    assert from_rpc_error(damaged).message == "gone"
