# ruff: noqa: N802 - methods have the names that the protos give them
"""A process with one slow call, started as every fleetcast process is: `python -m tests.support.served DATA_DIR`.

Prints its port. GetSession answers after half a second, and logs a line with a secret in it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fleetcast.scheduler.v1 import session_service_pb2 as pb
from fleetcast.scheduler.v1 import session_service_pb2_grpc as pb_grpc
from fleetcast_kit import logs, telemetry
from fleetcast_kit.bootstrap import open_installation
from fleetcast_kit.enrolment_token import EnrolmentToken
from fleetcast_kit.identity import ENROLLED_ROLES
from fleetcast_kit.server import GrpcServer, Service, run_until_signal

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["SessionService"].methods]


class SlowSessions(pb_grpc.SessionServiceServicer):
    """Answers GetSession after half a second."""

    async def GetSession(self, request: pb.GetSessionRequest, context: Any) -> pb.GetSessionResponse:
        logging.getLogger(__name__).info("called with %s", EnrolmentToken.create(bytes(32)).pack())
        telemetry.meter(__name__).create_counter("calls").add(1)
        print("called", flush=True)
        await asyncio.sleep(0.5)
        return pb.GetSessionResponse()

    async def WatchSession(self, request: pb.WatchSessionRequest, context: Any) -> AsyncIterator[Any]:
        while True:
            yield pb.WatchSessionResponse()
            await asyncio.sleep(0.1)

    async def _unused(self, request: Any, context: Any) -> Any: ...

    CreateSession = ListSessions = ListParticipants = StartSession = CancelSession = _unused


async def serve(directory: Path) -> None:
    """Serves until a signal."""
    installation = open_installation(directory, listen="localhost:0")
    service = Service(
        pb_grpc.add_SessionServiceServicer_to_server,
        SlowSessions(),
        "fleetcast.scheduler.v1.SessionService",
        dict.fromkeys(METHODS, ENROLLED_ROLES),
    )
    server = GrpcServer("localhost:0", installation.server, [service])
    await server.start()
    print(server.port, flush=True)
    await run_until_signal(server.stop)


if __name__ == "__main__":
    logs.configure("kit-test", "json")
    telemetry.start("kit-test")
    try:
        asyncio.run(serve(Path(sys.argv[1])))
    finally:
        telemetry.stop()
