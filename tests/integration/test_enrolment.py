"""Enrolment over a real server: what a token gives, to whom, how often, and what a holder is told when it does not."""

import asyncio
import os
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from fleetcast.scheduler.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc
from fleetcast_kit.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
    from_rpc_error,
)
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.joining.enrolment import enrol, renew_if_due
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_scheduler.enrolment.enrolment import Enrolment

from tests.support.tokens import create_token, holder_of, list_tokens
from tests.support.trust import serving_enrolment


async def test_a_machine_gets_an_identity_for_a_key_that_never_leaves_it(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server)).token
        state = tmp_path / "machine"
        credentials = await enrol(server.address, token, state, "lab-7")
        assert credentials.identity.role is Role.MACHINE
        assert credentials == Credentials.load(state)
        assert stat.S_IMODE((state / "key.pem").stat().st_mode) == 0o600
        assert certificates.names_in(credentials.certificate) == ()
        async with open_channel(server.address, credentials) as channel:
            response = await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).RenewCertificate(
                enrolment_service_pb2.RenewCertificateRequest(
                    public_key=certificates.public_key_der(credentials.private_key.public_key())
                ),
                timeout=10,
            )
        assert x509.load_pem_x509_certificate(response.certificate).subject == credentials.certificate.subject


async def test_a_sender_gets_a_certificate_that_it_can_serve_with(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server, role=enrolment_service_pb2.ENROLMENT_ROLE_SENDER)).token
        names = ["sender.lan", "10.0.0.7"]
        credentials = await enrol(server.address, token, tmp_path / "s", "sender", advertised_names=names)
        assert credentials.identity.role is Role.SENDER
        assert certificates.names_in(credentials.certificate) == ("10.0.0.7", "sender.lan")


@pytest.mark.parametrize("names", [[], ["not a name"], ["*.lan"], ["-x"], ["a" * 64], ["x"] * 65])
async def test_a_sender_cannot_enrol_with_names_that_are_none(tmp_path: Path, names: list[str]) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server, role=enrolment_service_pb2.ENROLMENT_ROLE_SENDER)).token
        with pytest.raises(InvalidArgumentError, match="name"):
            await enrol(server.address, token, tmp_path / "s", "sender", advertised_names=names)


async def test_enrolling_again_is_harmless_and_uses_nothing_up(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server)).token
        first = await enrol(server.address, token, tmp_path / "m", "m")
        assert await enrol(server.address, token, tmp_path / "m", "m") == first
        # As after kill -9 between the answer and the last file.
        (tmp_path / "m" / "cert.pem").unlink()
        (tmp_path / "m" / "ca.pem").unlink()
        again = await enrol(server.address, token, tmp_path / "m", "m")
        assert again.identity == first.identity
        assert [found.used_count for found in await list_tokens(server)] == [1]


class Killed(BaseException):
    """Stands for the end of the process: nothing handles it."""


async def test_enrolling_killed_before_any_file_ends_with_one_identity_and_one_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        replace = os.replace
        for number in range(1, 10):
            token = (await create_token(server)).token
            calls = 0

            def replace_or_die(source: str, target: Path, *, number: int = number) -> None:
                nonlocal calls
                calls += 1
                if calls == number:
                    raise Killed
                replace(source, target)

            with monkeypatch.context() as patched:
                patched.setattr(os, "replace", replace_or_die)
                try:
                    await enrol(server.address, token, tmp_path / str(number), "m")
                except Killed:
                    pass
                else:
                    assert number == 4  # the key is there already
                    break
            await enrol(server.address, token, tmp_path / str(number), "m")
            newest = (await list_tokens(server))[0]
            assert (newest.uses, newest.used_count) == (1, 1)


async def test_a_machine_that_was_off_for_too_long_enrols_again_as_itself(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        first = await enrol(server.address, (await create_token(server)).token, tmp_path / "m", "m")
        expired = server.authority.issue(first.private_key.public_key(), first.identity, lifetime=timedelta(seconds=-1))
        (tmp_path / "m" / "cert.pem").write_bytes(certificates.certificate_pem(expired))
        again = await enrol(server.address, (await create_token(server)).token, tmp_path / "m", "m")
        assert again.identity == first.identity
        assert again.certificate.not_valid_after_utc > certificates.now()


async def test_a_token_is_used_no_more_often_than_it_may_under_a_rush(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server, uses=3)).token
        results = await asyncio.gather(
            *(enrol(server.address, token, tmp_path / f"m{number}", "m") for number in range(12)),
            return_exceptions=True,
        )
        enrolled = [result for result in results if isinstance(result, Credentials)]
        refused = [result for result in results if isinstance(result, ResourceExhaustedError)]
        assert (len(enrolled), len(refused)) == (3, 9)
        assert len({credentials.identity for credentials in enrolled}) == 3
        assert str(refused[0]) == (
            "this enrolment token is used up (3 of 3): make a new one with: fleetcast enrolment-token create"
        )


async def test_one_key_in_a_rush_is_one_identity_and_one_use(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = EnrolmentToken.unpack((await create_token(server, uses=5)).token)
        holder = holder_of(token, server.authority)

        async def call() -> str:
            async with open_channel(server.address, holder) as channel:
                response = await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
                    enrolment_service_pb2.EnrolRequest(), timeout=10
                )
                return response.name

        assert len(set(await asyncio.gather(*(call() for _ in range(8))))) == 1
        assert [found.used_count for found in await list_tokens(server)] == [1]


async def test_an_expired_and_a_revoked_token_are_told_apart(tmp_path: Path) -> None:
    passed = timedelta()
    async with serving_enrolment(tmp_path, clock=lambda: datetime.now(UTC) + passed) as (server, _):
        expiring = await create_token(server, lifetime=timedelta(seconds=60))
        revoked = await create_token(server)
        async with server.dial(Role.ADMINISTRATOR) as channel:
            stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
            for _ in range(2):
                request = enrolment_service_pb2.RevokeEnrolmentTokenRequest(name=revoked.enrolment_token.name)
                response = await stub.RevokeEnrolmentToken(request, timeout=10)
                assert response.enrolment_token.HasField("revoke_time")
            with pytest.raises(grpc.aio.AioRpcError, match="token nobody: `fleetcast enrolment-token list`"):
                await stub.RevokeEnrolmentToken(
                    enrolment_service_pb2.RevokeEnrolmentTokenRequest(name="enrolmentTokens/nobody")
                )
        with pytest.raises(FailedPreconditionError, match=r"was revoked at 20.* make a new one") as caught:
            await enrol(server.address, revoked.token, tmp_path / "m", "m")
        assert caught.value.reason == "TOKEN_REVOKED"
        assert not (tmp_path / "m").exists()
        passed = timedelta(seconds=61)
        with pytest.raises(FailedPreconditionError, match="expired at 20") as caught:
            await enrol(server.address, expiring.token, tmp_path / "m", "m")
        assert caught.value.reason == "TOKEN_EXPIRED"


async def test_a_mistyped_token_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    token = EnrolmentToken.create(bytes(32)).pack()
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    for text, message in [
        (wrong, "mistyped"),
        (token[:-3], "77 characters"),
        ("hello", "not an enrolment token"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            await enrol("localhost:1", text, tmp_path / "m", "m")
    assert not (tmp_path / "m").exists()


async def test_a_token_for_another_server_is_recognised_by_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with serving_enrolment(tmp_path / "a") as (one, _), serving_enrolment(tmp_path / "b") as (other, _):
        token = (await create_token(other)).token
        with pytest.raises(FailedPreconditionError, match="is for another server") as caught:
            await enrol(one.address, token, tmp_path / "m", "m")
        assert caught.value.reason == "TOKEN_FOR_OTHER_SERVER"
        assert not (tmp_path / "m").exists()
        credentials = await enrol(other.address, token, tmp_path / "m", "m")
        second = (await create_token(one)).token
        with pytest.raises(FailedPreconditionError, match="of another server: remove it to enrol anew"):
            await enrol(one.address, second, tmp_path / "m", "m")
        assert Credentials.load(tmp_path / "m") == credentials


async def test_a_token_that_the_server_has_forgotten_is_explained(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = EnrolmentToken.create(server.authority.fingerprint).pack()
        with pytest.raises(FailedPreconditionError, match="does not know this enrolment token") as caught:
            await enrol(server.address, token, tmp_path / "m", "m")
        assert caught.value.reason == "TOKEN_UNKNOWN"


async def test_wrong_addresses_are_told_apart(tmp_path: Path, unused_tcp_port: int) -> None:
    token = EnrolmentToken.create(bytes(32)).pack()
    with pytest.raises(UnavailableError, match=r"cannot reach localhost:\d+: .*refused"):
        await enrol(f"localhost:{unused_tcp_port}", token, tmp_path / "m", "m")
    with pytest.raises(UnavailableError, match=r"host name 'no-such-host.invalid' is not known"):
        await enrol("no-such-host.invalid", token, tmp_path / "m", "m")
    with pytest.raises(InvalidArgumentError, match="write HOST:PORT"):
        await enrol("localhost:port", token, tmp_path / "m", "m")


async def test_something_else_on_the_port_is_recognised(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()
        await reader.read(10)
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(UnavailableError, match="does not speak TLS as a fleetcast server does"):
            await enrol(f"127.0.0.1:{port}", EnrolmentToken.create(bytes(32)).pack(), tmp_path / "m", "m")


async def test_an_address_that_is_not_in_the_servers_certificate_is_explained(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server)).token
        message = r"does not know itself as '127\.0\.0\.2'.*--advertise 127\.0\.0\.2"
        with socket.create_server(("127.0.0.2", 0)) as relay:
            forwarding = asyncio.create_task(forward(relay, server.server.port))
            with pytest.raises(FailedPreconditionError, match=message):
                await enrol(f"127.0.0.2:{relay.getsockname()[1]}", token, tmp_path / "m", "m")
            forwarding.cancel()


async def forward(relay: socket.socket, port: int) -> None:
    """Carries connections on `relay` to `port` of the loopback."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer), return_exceptions=True)

    relay.setblocking(False)
    server = await asyncio.start_server(accept, sock=relay)
    async with server:
        await server.serve_forever()


async def test_the_holder_of_a_token_can_enrol_and_do_nothing_else(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = EnrolmentToken.unpack((await create_token(server)).token)
        async with open_channel(server.address, holder_of(token, server.authority)) as channel:
            stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
            cases: list[tuple[Any, Any]] = [
                (stub.CreateEnrolmentToken, enrolment_service_pb2.CreateEnrolmentTokenRequest()),
                (stub.ListEnrolmentTokens, enrolment_service_pb2.ListEnrolmentTokensRequest()),
                (stub.RevokeEnrolmentToken, enrolment_service_pb2.RevokeEnrolmentTokenRequest()),
                (stub.RenewCertificate, enrolment_service_pb2.RenewCertificateRequest()),
            ]
            for call, request in cases:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(request, timeout=10)
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("claimed", ["fleetcast:administrators/local", "fleetcast:machines/victim"])
async def test_a_certificate_signed_with_a_token_proves_nothing_that_it_claims(tmp_path: Path, claimed: str) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = EnrolmentToken.unpack((await create_token(server)).token)
        key = certificates.generate_key()
        now = certificates.now()
        forged = certificates.leaf(
            key.public_key(),
            "forged",
            issuer_key=token._key(),
            issuer_common_name=f"enrolment-token:{token.id}",
            not_before=now - timedelta(days=1),
            not_after=now + timedelta(days=1),
            uri=claimed,
        )
        forger = Credentials(
            certificates.private_key_pem(key), certificates.certificate_pem(forged), server.authority.certificate_pem
        )
        async with open_channel(server.address, forger) as channel:
            stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListEnrolmentTokens(enrolment_service_pb2.ListEnrolmentTokensRequest(), timeout=10)
        error = from_rpc_error(caught.value)
        assert error.reason == "ROLE_NOT_ALLOWED"
        assert error.metadata["role"] == "token holder"


async def test_a_token_cannot_sign_an_authority_between(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = EnrolmentToken.unpack((await create_token(server)).token)
        between, key = certificates.generate_key(), certificates.generate_key()
        now = certificates.now()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"enrolment-token:{token.id}")])
        authority_between = (
            x509.CertificateBuilder(issuer, name, between.public_key(), 7, now - timedelta(1), now + timedelta(1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(token._key(), hashes.SHA256())
        )
        leaf = certificates.leaf(
            key.public_key(),
            "leaf",
            issuer_key=between,
            issuer_common_name="between",
            not_before=now - timedelta(1),
            not_after=now + timedelta(1),
            uri="fleetcast:administrators/local",
        )
        chain = certificates.certificate_pem(leaf) + certificates.certificate_pem(authority_between)
        forger = Credentials(certificates.private_key_pem(key), chain, server.authority.certificate_pem)
        async with open_channel(server.address, forger) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
                    enrolment_service_pb2.EnrolRequest(), timeout=10
                )
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)


async def test_a_machine_cannot_make_tokens(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _), server.dial(Role.MACHINE) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).CreateEnrolmentToken(
                enrolment_service_pb2.CreateEnrolmentTokenRequest(), timeout=10
            )
        error = from_rpc_error(caught.value)
        assert error.message == (
            "machines/test has the role machine; fleetcast.scheduler.v1.EnrolmentService/CreateEnrolmentToken "
            "is for: administrator"
        )


async def test_a_stranger_without_a_certificate_does_not_get_past_tls(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        bare = grpc.ssl_channel_credentials(server.authority.certificate_pem)
        async with grpc.aio.secure_channel(server.address, bare) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
                    enrolment_service_pb2.EnrolRequest(), timeout=5
                )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.insecure_channel(server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
                    enrolment_service_pb2.EnrolRequest(), timeout=5
                )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        old = server.authority.issue_credentials(
            Identity.of(Role.SENDER, "east"), names=["east.lan"], lifetime=timedelta(hours=1)
        )
        old.save(tmp_path / "s")
        renewed = await renew_if_due(server.address, tmp_path / "s")
        assert renewed.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc
        assert (renewed.identity, renewed.key_pem) == (old.identity, old.key_pem)
        assert certificates.names_in(renewed.certificate) == ("east.lan",)
        assert Credentials.load(tmp_path / "s") == renewed
        assert await renew_if_due(server.address, tmp_path / "s") == renewed


async def test_a_key_that_is_none_is_not_certified(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _), server.dial(Role.MACHINE) as channel:
        for key in (b"", b"\x30\x00", os.urandom(91)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).RenewCertificate(
                    enrolment_service_pb2.RenewCertificateRequest(public_key=key), timeout=10
                )
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_machine_whose_clock_is_wrong_is_told_so(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server)).token
        with pytest.raises(FailedPreconditionError, match="this machine's clock says 2009-01-01") as caught:
            await enrol(server.address, token, tmp_path / "m", "m", clock=lambda: datetime(2009, 1, 1, tzinfo=UTC))
        assert caught.value.reason == "CLOCK_WRONG"


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server)).token
        with pytest.raises(FailedPreconditionError, match=r"cannot be used: .*; choose another with --state-dir"):
            await enrol(server.address, token, tmp_path / "file" / "m", "m")
        assert (await list_tokens(server))[0].used_count == 0


async def test_a_damaged_key_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "key.pem").write_text("damaged")
    async with serving_enrolment(tmp_path) as (server, _):
        token = (await create_token(server)).token
        with pytest.raises(FailedPreconditionError, match=r"key\.pem is damaged: remove it to enrol anew"):
            await enrol(server.address, token, tmp_path / "m", "m")
    assert (tmp_path / "m" / "key.pem").read_text() == "damaged"


class VanishingEnrolment(Enrolment):
    """Gives the first holder its identity, and vanishes before it can say so."""

    has_vanished = False

    async def enrol(self, *arguments: Any, **named: Any) -> Any:
        enrolled = await super().enrol(*arguments, **named)
        if not self.has_vanished:
            self.has_vanished = True
            raise UnavailableError("the connection broke after the use was counted")
        return enrolled


async def test_a_server_that_vanishes_in_the_middle_leaves_the_key_for_the_next_attempt(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path, kind=VanishingEnrolment) as (server, _):
        token = (await create_token(server)).token
        with pytest.raises(UnavailableError):
            await enrol(server.address, token, tmp_path / "m", "m")
        await enrol(server.address, token, tmp_path / "m", "m")
        assert (await list_tokens(server))[0].used_count == 1
