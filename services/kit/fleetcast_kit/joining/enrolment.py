"""How a machine, or a sender or service on a host of its own, gets its identity, and keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fleetcast.scheduler.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc

from fleetcast_kit.errors import (
    AbortedError,
    FailedPreconditionError,
    FleetcastError,
    InternalError,
    NotFoundError,
    UnavailableError,
    from_rpc_error,
)
from fleetcast_kit.files import make_private_directory, write_atomically
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.credentials import KEY_FILE, Credentials
from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.joining.first_contact import fetch_authority
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.values.addresses import join_address, split_address

CALL_SECONDS = 20.0
"""Deadline of a call: issuing takes milliseconds, a thousand machines at once some seconds."""


async def enrol(
    server: str,
    token: str,
    directory: Path,
    display_name: str,
    *,
    advertised_names: Sequence[str] = (),
    clock: Callable[[], datetime] = certificates.now,
    ticket: str = "",
) -> Credentials:
    """Returns the credentials that `token` gives, kept in `directory`; those that are there already, if they fit.

    The private key is made here and stays here. A repetition, also after being killed at any moment, ends with the same
    identity and uses the token no further. `server` is HOST:PORT; `display_name` is for people; `advertised_names` are
    what a sender or service is reached by; `ticket` is what a machine was given that started from the network. `clock`
    is this machine's.

    Raises:
        InvalidArgumentError: the address or the token is mistyped.
        FailedPreconditionError: the token is for another server, expired or revoked; or `directory` holds an identity
            of another server; or the ticket has ended, with the reason TICKET_ENDED, or was used by another key.
        ResourceExhaustedError: the token is used up.
        UnavailableError: the server cannot be reached.
    """
    host, port = split_address(server, field="server")
    unpacked = EnrolmentToken.unpack(token)
    present = _present(directory, clock())
    if present is not None:
        if certificates.fingerprint(present.authority) != unpacked.authority_fingerprint:
            raise FailedPreconditionError(
                f"{directory} holds the identity {present.identity} of another server: remove it to enrol anew",
                reason="ENROLLED_ELSEWHERE",
            )
        return present
    authority = await asyncio.to_thread(fetch_authority, host, port, unpacked.authority_fingerprint, clock)
    key, forget_key = _key_in(directory)
    holder = Credentials(
        certificates.private_key_pem(key),
        certificates.certificate_pem(unpacked.leaf(key.public_key())),
        certificates.certificate_pem(authority),
    )
    request = enrolment_service_pb2.EnrolRequest(
        display_name=display_name, advertised_names=advertised_names, ticket=ticket
    )
    async with open_channel(join_address(host, port), holder) as channel:
        stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            response = await stub.Enrol(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            explained = _explained(error, server)
            if not isinstance(explained, UnavailableError | AbortedError | InternalError):
                forget_key()  # it was refused for certain, so no identity belongs to it
            raise explained from error
    credentials = Credentials(holder.key_pem, response.certificate, holder.authority_pem)
    credentials.save(directory)
    return credentials


async def renew_if_due(server: str, directory: Path) -> Credentials:
    """Returns the credentials in `directory`, renewed by the scheduler at `server` when a third of their life is left.

    The key stays, so that being killed in between leaves a usable pair.

    Raises:
        NotFoundError: there are no credentials.
        FleetcastError: the renewal failed; the present credentials go on working until they expire.
    """
    present = Credentials.load(directory)
    if certificates.now() < present.renewal_time:
        return present
    request = enrolment_service_pb2.RenewCertificateRequest(
        public_key=certificates.public_key_der(present.private_key.public_key())
    )
    async with open_channel(server, present) as channel:
        stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            response = await stub.RenewCertificate(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=server) from error
    renewed = Credentials(present.key_pem, response.certificate, present.authority_pem)
    renewed.save(directory)
    return renewed


def _present(directory: Path, now: datetime) -> Credentials | None:
    """Returns the credentials in `directory` unless they are missing, incomplete or expired."""
    try:
        present = Credentials.load(directory)
    except NotFoundError:
        return None
    return present if now < present.certificate.not_valid_after_utc else None


def _key_in(directory: Path) -> tuple[ec.EllipticCurvePrivateKey, Callable[[], None]]:
    """Returns the key in `directory`, made there unless a killed attempt left one, and what removes what was made."""
    file = directory / KEY_FILE
    is_new_directory, is_new_file = not directory.exists(), not file.exists()

    def forget() -> None:
        if is_new_file:
            file.unlink()
        if is_new_directory:
            directory.rmdir()

    try:
        make_private_directory(directory)
        if is_new_file:
            write_atomically(file, certificates.private_key_pem(certificates.generate_key()))
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except OSError as error:
        raise FailedPreconditionError(
            f"the state directory {directory} cannot be used: {error.strerror}; choose another with --state-dir"
        ) from error
    except ValueError as error:
        raise FailedPreconditionError(f"{file} is damaged: remove it to enrol anew") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FailedPreconditionError(f"{file} is not a key on an elliptic curve: remove it to enrol anew")
    return key, forget


def _explained(error: grpc.aio.AioRpcError, server: str) -> FleetcastError:
    """Returns what a failed Enrol means: the server answered a moment ago, so an end of TLS is a refusal."""
    found = from_rpc_error(error, address=server)
    if error.code() is grpc.StatusCode.UNAVAILABLE and found.reason in ("CREDENTIAL_REFUSED", "UNAVAILABLE"):
        details = (error.details() or "").lower()
        if "handshake" in details or "ssl" in details or "socket closed" in details or "reset" in details:
            return FailedPreconditionError(
                f"the server at {server} does not know this enrolment token: it ended more than 30 days ago, or the "
                "server has lost its data; make a new one with: fleetcast enrolment-token create",
                reason="TOKEN_UNKNOWN",
            )
    return found
