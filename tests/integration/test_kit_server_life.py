"""How the server that every process starts begins, renews its certificate, and ends."""

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from fleetcast_kit.errors import (
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
    UnavailableError,
)
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials, TrustBundle
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import GrpcServer, Service
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.echo import Echo, EchoStub, echo_service, get, watch
from tests.support.trust import NAMES, TrustedServer, serving
from tests.support.waiting import until

ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})


async def test_a_method_without_declared_roles_is_a_start_up_error() -> None:
    credentials = ServerCredentials(CertificateAuthority.create().issue_credentials(Identity.of(Role.SERVICE, "x")))

    def build(service: Service) -> GrpcServer:
        return GrpcServer("localhost:0", credentials, [service])

    good = echo_service()
    missing = Service(good.add, good.servicer, good.full_name, {"Get": ADMINISTRATORS})
    with pytest.raises(ValueError, match="no roles are declared for Exchange, Refuse, Watch"):
        build(missing)
    with pytest.raises(ValueError, match="has no method Gte"):
        build(echo_service(Gte=ADMINISTRATORS))
    with pytest.raises(ValueError, match=r"fleetcast\.Nothing is not the name of a known service"):
        build(Service(good.add, good.servicer, "fleetcast.Nothing", {}))


async def test_a_server_may_have_as_many_connections_as_the_system_lets_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
    try:
        async with serving():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_handler_of_the_wrong_form_is_a_start_up_error() -> None:
    class Wrong(Echo):
        async def Watch(self, request: Any, context: Any) -> Any:  # type: ignore[override]
            return []

    class Blocking(Echo):
        def Get(self, request: Any, context: Any) -> Any:
            return StringValue()

    with pytest.raises(ValueError, match="Watch streams its answer: it must be an async generator"):
        echo_service(Wrong()).check()
    with pytest.raises(ValueError, match="Get must be a coroutine function"):
        echo_service(Blocking()).check()


async def test_a_port_in_use_is_named_with_what_to_do() -> None:
    async with serving() as server:
        again = GrpcServer(f"localhost:{server.server.port}", ServerCredentials(server.credentials(Role.SERVICE)), [])
        with pytest.raises(FailedPreconditionError) as caught:
            await again.start()
        port = server.server.port
        assert caught.value.message == (
            f"cannot listen on localhost:{port}: port {port} is in use by another process; "
            "stop that one, or choose another port with --listen"
        )
        await again.stop(0)


async def test_addresses_that_cannot_be_listened_on_are_named() -> None:
    credentials = ServerCredentials(CertificateAuthority.create().issue_credentials(Identity.of(Role.SERVICE, "x")))
    for listen, message in [
        ("192.0.2.1:0", "this host does not have that address"),
        ("no-such-host.invalid:0", "is not a known host name"),
    ]:
        with pytest.raises(FailedPreconditionError, match=message):
            await GrpcServer(listen, credentials, []).start()
    with pytest.raises(InvalidArgumentError, match="write HOST:PORT"):
        GrpcServer("localhost:x", credentials, [])


async def test_a_port_is_free_again_right_after_the_end() -> None:
    async with serving([echo_service()]) as first:
        await get(first)
        port = first.server.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    credentials = first.authority.issue_credentials(Identity.of(Role.SERVICE, "x"), names=NAMES)
    again = GrpcServer(f"localhost:{port}", ServerCredentials(credentials), [])
    await again.start()
    await again.stop(0)


async def refuses(server: TrustedServer) -> bool:
    """Returns whether a server takes no new calls."""
    try:
        await get(server)
    except UnavailableError:
        return True
    return False


async def test_a_call_in_flight_is_finished_before_the_end() -> None:
    echo = Echo()
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        entered.set()
        await release.wait()
        return "done"

    async def quick() -> str:
        return "done"

    echo.get = slow
    async with serving([echo_service(echo)]) as server:
        call = asyncio.create_task(get(server))
        await entered.wait()
        echo.get = quick
        stop = asyncio.create_task(server.server.stop(10))
        await until(partial(refuses, server))
        release.set()
        assert await call == "done"
        await asyncio.wait_for(stop, 5)


async def test_a_call_that_does_not_finish_is_ended_after_the_grace() -> None:
    echo = Echo()
    entered = asyncio.Event()

    async def for_ever() -> str:
        entered.set()
        await asyncio.Event().wait()
        return ""

    echo.get = for_ever
    async with serving([echo_service(echo)]) as server:
        call = asyncio.create_task(get(server))
        await entered.wait()
        await asyncio.wait_for(server.server.stop(0.1), 5)
        with pytest.raises(FleetcastError):
            await call


async def test_streams_end_in_order_when_the_server_stops() -> None:
    echo, events = Echo(), list[str]()
    waiting = asyncio.Event()

    async def for_ever() -> AsyncIterator[str]:
        try:
            yield "one"
            waiting.set()
            await asyncio.Event().wait()
        finally:
            events.append("cleaned up")

    echo.watch = for_ever
    async with serving([echo_service(echo)]) as server, server.dial(Role.MACHINE) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        states = [(await health.read()).status]
        call = asyncio.create_task(watch(server))
        await waiting.wait()
        await asyncio.wait_for(server.server.stop(10), 5)
        with pytest.raises(UnavailableError, match="the server is stopping") as caught:
            await call
        assert caught.value.reason == "SERVER_STOPPING"
        assert events == ["cleaned up"]
        states.append((await health.read()).status)
        with pytest.raises(grpc.aio.AioRpcError):
            await health.read()
        assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_a_new_certificate_is_shown_from_the_next_handshake_on() -> None:
    authority = CertificateAuthority.create()
    identity = Identity.of(Role.SERVICE, "x")
    credentials = ServerCredentials(authority.issue_credentials(identity, names=["elsewhere.lan"]))
    server = GrpcServer("localhost:0", credentials, [])
    await server.start()

    async def check() -> None:
        bearer = authority.issue_credentials(Identity.of(Role.MACHINE, "x"))
        async with open_channel(f"localhost:{server.port}", bearer) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)

    with pytest.raises(grpc.aio.AioRpcError):
        await check()
    credentials.replace(authority.issue_credentials(identity, names=NAMES))
    await check()
    await server.stop(0)


async def test_a_certificate_near_its_end_is_issued_anew_without_a_restart() -> None:
    authority = CertificateAuthority.create()
    identity = Identity.of(Role.SERVICE, "x")
    near = authority.issue_credentials(identity, names=["elsewhere.lan"], lifetime=timedelta(hours=1))
    fresh = authority.issue_credentials(identity, names=NAMES)
    credentials = ServerCredentials(near, TrustBundle(authority.certificate), reissue=lambda: fresh)
    server = GrpcServer("localhost:0", credentials, [])
    await server.start()
    async with open_channel(f"localhost:{server.port}", fresh) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.stop(0)


async def test_a_renewal_that_fails_is_logged_and_the_old_certificate_serves_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = CertificateAuthority.create()
    near = authority.issue_credentials(Identity.of(Role.SERVICE, "x"), names=NAMES, lifetime=timedelta(hours=1))

    def fail() -> Credentials:
        raise OSError(errno.ENOSPC, "No space left on device")

    credentials = ServerCredentials(near, TrustBundle(authority.certificate), reissue=fail)
    server = GrpcServer("localhost:0", credentials, [])
    await server.start()
    async with open_channel(f"localhost:{server.port}", near) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.stop(0)
    assert "cannot renew the server's certificate" in caplog.text


async def test_messages_beyond_the_limit_are_refused_by_the_transport() -> None:
    request = StringValue(value="x" * (16 * 2**20 + 1))
    async with serving([echo_service()]) as server, server.dial(Role.ADMINISTRATOR) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).Get(request, timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
