import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.scheduler.v1 import session_service_pb2
from fleetcast.scheduler.v1.session_pb2 import Participant, ReceptionTotals, Session, StartRules
from fleetcast.scheduler.v1.session_service_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)
from fleetcast_kit.errors import NotFoundError
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.rpc.server import GrpcServer, Service

FLEETCAST = Path(sys.executable).parent / "fleetcast"
METHODS = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].methods_by_name
Watch = Callable[[session_service_pb2.WatchSessionRequest], AsyncIterator[session_service_pb2.WatchSessionResponse]]


def watched_session(script: Watch) -> SessionServiceServicer:
    """Returns a scheduler whose sessions can only be watched, as a script tells."""

    async def watch(
        self: object,
        request: session_service_pb2.WatchSessionRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        async for answer in script(request):
            yield answer

    async def refuse(self: object, request: object, context: object) -> None:
        raise NotFoundError("this scheduler only shows")

    handlers = dict.fromkeys(METHODS, refuse) | {"WatchSession": watch}
    servicer: SessionServiceServicer = type("WatchedSession", (SessionServiceServicer,), handlers)()
    return servicer


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create()


@pytest.fixture
def credentials(authority: CertificateAuthority, tmp_path: Path) -> Path:
    authority.issue_credentials(Identity.of(Role.ADMINISTRATOR, "a")).save(tmp_path / "administrator")
    return tmp_path / "administrator"


async def serve(authority: CertificateAuthority, script: Watch, port: int = 0) -> GrpcServer:
    identity = Identity.of(Role.SERVICE, "server")
    server = GrpcServer(
        f"127.0.0.1:{port}",
        ServerCredentials(authority.issue_credentials(identity, names=["127.0.0.1"])),
        [
            Service(
                add_SessionServiceServicer_to_server,
                watched_session(script),
                "fleetcast.scheduler.v1.SessionService",
                dict.fromkeys(METHODS, frozenset({Role.ADMINISTRATOR})),
            )
        ],
    )
    await server.start()
    return server


async def start_watch(port: int, credentials: Path, *flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        FLEETCAST,
        *("--server", f"127.0.0.1:{port}", "--credentials", str(credentials), "session", "watch", "s1", *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FLEETCAST_"))},
    )


def change(revision: int, state: "Session.State.ValueType", percent: int) -> session_service_pb2.WatchSessionResponse:
    session = Session(
        name="sessions/s1",
        image="images/a@sha256:" + "ab" * 32,
        state=state,
        revision=revision,
        participant_count=1,
        start_rules=StartRules(min_clients=2),
    )
    done = percent == 100
    participant = Participant(
        name="sessions/s1/participants/m1",
        machine="machines/m1",
        display_name="pc-1",
        state=Participant.STATE_SUCCEEDED if done else Participant.STATE_RECEIVING,
        totals=ReceptionTotals(size_bytes=1000, written_bytes=10 * percent),
        remaining_seconds=-1,
    )
    return session_service_pb2.WatchSessionResponse(session=session, participants=[participant])


async def test_a_watch_outlives_a_restart_of_the_server_and_asks_only_for_what_changed(
    authority: CertificateAuthority, credentials: Path
) -> None:
    seen = asyncio.Event()
    asked: list[int] = []

    async def before(
        request: session_service_pb2.WatchSessionRequest,
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        asked.append(request.after_revision)
        yield change(7, Session.STATE_RUNNING, 50)
        seen.set()
        await asyncio.Event().wait()

    async def after(
        request: session_service_pb2.WatchSessionRequest,
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        asked.append(request.after_revision)
        yield change(9, Session.STATE_COMPLETED, 100)

    server = await serve(authority, before)
    watch = await start_watch(server.port, credentials)
    await asyncio.wait_for(seen.wait(), 20)
    await server.stop(0)
    server = await serve(authority, after, server.port)
    out, err = await asyncio.wait_for(watch.communicate(), 20)
    await server.stop(0)
    assert (watch.returncode, err) == (0, b"")
    assert asked == [0, 7]
    lines = out.decode().splitlines()
    assert "session s1: running; 1 machine" in lines[0]
    assert "pc-1 (m1): receiving, 50 %" in lines[1]
    assert "no contact with the server" in lines[2]
    assert "the server is back" in lines[3]
    assert "session s1: completed" in lines[4]
    assert "pc-1 (m1): succeeded, 100 %" in lines[5]


async def test_json_is_one_object_a_line_and_a_cancelled_session_is_no_success(
    authority: CertificateAuthority, credentials: Path
) -> None:
    async def script(
        request: session_service_pb2.WatchSessionRequest,
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        yield change(1, Session.STATE_RUNNING, 10)
        yield change(2, Session.STATE_CANCELLED, 10)

    server = await serve(authority, script)
    watch = await start_watch(server.port, credentials, "--json")
    out, err = await asyncio.wait_for(watch.communicate(), 20)
    await server.stop(0)
    changes = [json.loads(line) for line in out.splitlines()]
    assert [each["session"]["state"] for each in changes] == ["running", "cancelled"]
    assert changes[0]["participants"][0]["totals"]["written_bytes"] == 100
    assert (watch.returncode, err.decode()) == (1, "fleetcast: session s1 is cancelled\n")


async def test_a_session_that_is_not_known_is_one_line_and_its_own_exit_code(
    authority: CertificateAuthority, credentials: Path
) -> None:
    async def script(
        request: session_service_pb2.WatchSessionRequest,
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        raise NotFoundError(f"there is no {request.name}")
        yield change(1, Session.STATE_RUNNING, 0)

    server = await serve(authority, script)
    watch = await start_watch(server.port, credentials)
    out, err = await asyncio.wait_for(watch.communicate(), 20)
    await server.stop(0)
    assert (watch.returncode, out, err.decode()) == (3, b"", "fleetcast: there is no sessions/s1\n")


async def test_a_server_of_another_authority_is_not_trusted(credentials: Path) -> None:
    async def script(
        request: session_service_pb2.WatchSessionRequest,
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        yield change(1, Session.STATE_COMPLETED, 100)

    server = await serve(CertificateAuthority.create(), script)
    watch = await start_watch(server.port, credentials)
    out, err = await asyncio.wait_for(watch.communicate(), 30)
    await server.stop(0)
    assert (watch.returncode, out) == (5, b"")
    assert err.decode().startswith(f"fleetcast: the server at 127.0.0.1:{server.port} did not prove")
    assert err.count(b"\n") == 1
