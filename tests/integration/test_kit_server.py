"""The server that every process starts: who gets in, what errors become, what is traced, how it ends."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from fleetcast_kit.errors import (
    FleetcastError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    from_rpc_error,
)
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.process.telemetry import tracer
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import GrpcServer
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.echo import Echo, EchoStub, caller, echo_service, get, watch
from tests.support.spans import recorded_spans
from tests.support.trust import NAMES, serving

ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})


async def test_handlers_know_who_calls() -> None:
    async with serving([echo_service()]) as server:
        assert await get(server) == "administrators/test"
        assert await watch(server) == ["administrators/test"]


async def test_handlers_know_who_calls_in_the_tasks_they_start() -> None:
    echo = Echo()

    async def ask_in_a_task() -> str:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(caller())
        return task.result()

    echo.get = ask_in_a_task
    async with serving([echo_service(echo)]) as server:
        assert await get(server) == "administrators/test"


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.ADMINISTRATOR, Role.TOKEN_HOLDER}))
async def test_a_role_that_is_not_declared_is_refused(role: Role) -> None:
    async with serving([echo_service()]) as server:
        with pytest.raises(PermissionDeniedError, match="is for: administrator") as caught:
            await get(server, role)
        assert caught.value.reason == "ROLE_NOT_ALLOWED"


async def test_a_certificate_of_another_authority_is_refused_at_the_handshake() -> None:
    async with serving([echo_service()]) as server:
        other = CertificateAuthority.create().issue_credentials(Identity.of(Role.ADMINISTRATOR, "evil"))
        stranger = Credentials(other.key_pem, other.certificate_pem, server.authority.certificate_pem)
        async with open_channel(server.address, stranger) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EchoStub(channel).Get(StringValue(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_the_authority_without_an_identity_is_refused() -> None:
    async with serving([echo_service()]) as server:
        key = certificates.generate_key()
        now = certificates.now()
        nobody = certificates.leaf(
            key.public_key(),
            "nobody",
            issuer_key=server.authority._key,
            issuer_common_name=str(server.authority.certificate.subject.rdns[0].rfc4514_string()).removeprefix("CN="),
            not_before=now - timedelta(1),
            not_after=now + timedelta(1),
            uri="https://example.test/administrators/local",
        )
        pem = certificates.certificate_pem(nobody)
        credentials = Credentials(certificates.private_key_pem(key), pem, server.authority.certificate_pem)
        async with open_channel(server.address, credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EchoStub(channel).Get(StringValue(), timeout=5)
        assert isinstance(from_rpc_error(caught.value), UnauthenticatedError)


async def test_a_client_refuses_a_server_of_another_authority() -> None:
    async with serving() as server:
        stranger = CertificateAuthority.create().issue_credentials(Identity.of(Role.ADMINISTRATOR, "x"))
        async with open_channel(server.address, stranger) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EchoStub(channel).Get(StringValue(), timeout=5)
        error = from_rpc_error(caught.value, address=server.address)
        assert isinstance(error, UnauthenticatedError)
        assert error.message.startswith(f"the server at {server.address} did not prove that it belongs to")


async def test_a_client_refuses_a_server_under_a_name_that_is_not_its_own() -> None:
    authority = CertificateAuthority.create()
    credentials = authority.issue_credentials(Identity.of(Role.SERVICE, "x"), names=["elsewhere.lan"])
    server = GrpcServer("127.0.0.1:0", ServerCredentials(credentials), [])
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}", credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).Get(StringValue(), timeout=5)
    assert isinstance(from_rpc_error(caught.value), UnauthenticatedError)
    await server.stop(0)


@pytest.mark.parametrize("host", NAMES)
async def test_a_server_is_reached_under_each_of_its_names(host: str) -> None:
    authority = CertificateAuthority.create()
    credentials = authority.issue_credentials(Identity.of(Role.SERVICE, "x"), names=NAMES)
    server = GrpcServer("[::]:0" if ":" in host else "0.0.0.0:0", ServerCredentials(credentials), [])
    await server.start()
    address = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    async with open_channel(address, credentials) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    await server.stop(0)


async def test_an_error_of_the_domain_arrives_whole() -> None:
    echo = Echo()
    async with serving([echo_service(echo)]) as server:

        async def refuse() -> str:
            raise InvalidArgumentError("size is -1", field="size", reason="SIZE_NEGATIVE", metadata={"size": "-1"})

        echo.get = refuse
        with pytest.raises(InvalidArgumentError) as caught:
            await get(server)
        error = caught.value
        assert (error.message, error.field, error.reason, error.metadata) == (
            "size is -1",
            "size",
            "SIZE_NEGATIVE",
            {"size": "-1"},
        )


async def test_an_error_after_some_answers_of_a_stream_arrives_whole() -> None:
    echo = Echo()

    async def two_then_lost() -> AsyncIterator[str]:
        yield "one"
        yield "two"
        raise NotFoundError("sessions/x is gone", metadata={"session": "sessions/x"})

    echo.watch = two_then_lost
    async with serving([echo_service(echo)]) as server, server.dial(Role.ADMINISTRATOR) as channel:
        call = EchoStub(channel).Watch(StringValue(), timeout=10)
        assert [(await call.read()).value for _ in range(2)] == ["one", "two"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert from_rpc_error(caught.value).metadata == {"session": "sessions/x"}


async def test_an_error_inside_a_task_group_arrives_as_itself() -> None:
    echo = Echo()

    async def fail() -> str:
        raise NotFoundError("sessions/x does not exist")

    async def fail_in_a_group() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
        return ""

    echo.get = fail_in_a_group
    async with serving([echo_service(echo)]) as server:
        with pytest.raises(NotFoundError, match="sessions/x does not exist"):
            await get(server)


async def test_a_defect_is_logged_and_its_text_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    echo = Echo()

    async def break_down() -> str:
        raise RuntimeError("password=hunter2")

    async def break_down_later() -> AsyncIterator[str]:
        yield "one"
        raise RuntimeError("password=hunter2")

    echo.get, echo.watch = break_down, break_down_later
    async with serving([echo_service(echo)]) as server:
        for call in (get, watch):
            with pytest.raises(InternalError) as caught:
                await call(server)
            assert caught.value.message == "the server met an error of its own: its log says more"
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True] * 2


async def test_an_abort_of_the_handler_passes_through() -> None:
    async with serving([echo_service()]) as server, server.dial(Role.ADMINISTRATOR) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).Refuse(StringValue(), timeout=10)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "by hand")


async def test_a_nested_calls_error_is_passed_on_unless_it_is_about_trust() -> None:
    inner_echo, outer_echo = Echo(), Echo()

    async def missing() -> str:
        raise NotFoundError("images/x does not exist")

    inner_echo.get = missing
    async with serving([echo_service(inner_echo)]) as inner, serving([echo_service(outer_echo)]) as outer:

        def ask_as(role: Role) -> Callable[[], Awaitable[str]]:
            async def ask() -> str:
                async with inner.dial(role) as channel:
                    return str((await EchoStub(channel).Get(StringValue(), timeout=5)).value)

            return ask

        outer_echo.get = ask_as(Role.ADMINISTRATOR)
        with pytest.raises(NotFoundError, match="images/x does not exist"):
            await get(outer)
        outer_echo.get = ask_as(Role.MACHINE)
        with pytest.raises(InternalError, match="an error of its own"):
            await get(outer)


async def test_a_cancelled_call_reaches_the_handlers_cleanup(caplog: pytest.LogCaptureFixture) -> None:
    exporter = recorded_spans()
    echo = Echo()
    cleaned = asyncio.Event()

    async def for_ever() -> AsyncIterator[str]:
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    echo.watch = for_ever
    async with serving([echo_service(echo)]) as server, server.dial(Role.ADMINISTRATOR) as channel:
        call = EchoStub(channel).Watch(StringValue(), timeout=10)
        async for _ in call:
            break
        call.cancel()
        await asyncio.wait_for(cleaned.wait(), 5)
    served = next(span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER)
    assert served.attributes is not None
    assert served.attributes["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_room_of_machines_connects_at_once() -> None:
    async with serving() as server:
        credentials = server.credentials(Role.MACHINE)

        async def check() -> None:
            async with open_channel(server.address, credentials) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)

        await asyncio.gather(*(check() for _ in range(300)))


async def test_messages_flow_both_ways_at_once() -> None:
    async with serving([echo_service(roles=frozenset({Role.MACHINE}))]) as server, server.dial(Role.MACHINE) as channel:

        async def requests() -> AsyncIterator[StringValue]:
            for number in range(100):
                yield StringValue(value=str(number))

        call = EchoStub(channel).Exchange(requests(), timeout=10)
        assert [response.value async for response in call] == [str(number) for number in range(100)]


async def test_messages_are_read_and_written_by_hand_too() -> None:
    async with serving([echo_service(roles=frozenset({Role.MACHINE}))]) as server, server.dial(Role.MACHINE) as channel:
        call = EchoStub(channel).Exchange(timeout=10)
        for value in ("one", "two"):
            await call.write(StringValue(value=value))
            assert (await call.read()).value == value
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_health_and_reflection_answer_every_enrolled_role() -> None:
    async with serving([echo_service()]) as server:
        for role in (Role.ADMINISTRATOR, Role.MACHINE, Role.SENDER, Role.SERVICE):
            async with server.dial(role) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                for name in ("", "fleetcast.test.Echo"):
                    response = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
                    assert response.status == health_pb2.HealthCheckResponse.SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_buf_curl_lists_and_calls_services_with_an_administrators_certificate(tmp_path: Path) -> None:
    buf = Path(sys.executable).with_name("buf")
    async with serving([echo_service()]) as server:
        server.credentials(Role.ADMINISTRATOR).save(tmp_path)
        files = {"cacert": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
        trust = [argument for flag, name in files.items() for argument in (f"--{flag}", str(tmp_path / name))]
        base = f"https://{server.address}"

        async def curl(*arguments: str) -> str:
            command = [str(buf), "curl", "--protocol", "grpc", *trust, *arguments]
            result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, cwd=tmp_path)
            assert result.returncode == 0, result.stderr
            return result.stdout

        assert "fleetcast.test.Echo" in await curl("--list-services", base)
        method = f"{base}/fleetcast.test.Echo/Get"
        assert "administrators/test" in await curl("-d", '""', method)


async def test_a_failed_call_is_a_failed_span_joined_to_its_caller() -> None:
    exporter = recorded_spans()
    echo = Echo()

    async def break_down() -> str:
        raise RuntimeError("broken")

    async def refuse() -> str:
        raise NotFoundError("sessions/x does not exist")

    method = "/fleetcast.test.Echo/Get"
    async with serving([echo_service(echo)]) as server:
        for handler, code, status in [
            (caller, grpc.StatusCode.OK, StatusCode.UNSET),
            (refuse, grpc.StatusCode.NOT_FOUND, StatusCode.UNSET),  # the caller's fault, says the convention
            (break_down, grpc.StatusCode.INTERNAL, StatusCode.ERROR),
        ]:
            echo.get = handler
            exporter.clear()
            with tracer(__name__).start_as_current_span("command") as command:
                try:
                    await get(server)
                except FleetcastError as error:
                    assert error.code is code  # noqa: PT017 - one of the cases succeeds
            served = next(span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER)
            called = next(span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT)
            assert served.name == called.name == method
            assert served.attributes is not None
            assert served.attributes["rpc.grpc.status_code"] == code.value[0]
            assert served.attributes["fleetcast.caller"] == "administrators/test"
            assert served.status.status_code is status
            assert called.status.status_code is (StatusCode.UNSET if code is grpc.StatusCode.OK else StatusCode.ERROR)
            assert served.parent is not None
            assert served.parent.span_id == called.context.span_id
            assert called.parent is not None
            assert called.parent.span_id == command.get_span_context().span_id


async def test_a_failed_stream_is_a_failed_span() -> None:
    exporter = recorded_spans()
    echo = Echo()

    async def break_down() -> AsyncIterator[str]:
        yield "one"
        raise RuntimeError("broken")

    echo.watch = break_down
    async with serving([echo_service(echo)]) as server:
        with pytest.raises(InternalError):
            await watch(server)
    served = next(span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER)
    assert served.status.status_code is StatusCode.ERROR
    assert served.attributes is not None
    assert served.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]


async def test_health_checks_leave_no_spans() -> None:
    exporter = recorded_spans()
    async with serving() as server, server.dial(Role.MACHINE) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert not [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
