"""A process with one slow call, started as every fleetcast process is: `python -m tests.support.served DATA_DIR`.

Prints its port. Get answers after half a second, and logs a line with a secret in it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.joining.installation import open_installation
from fleetcast_kit.process import logs, telemetry
from fleetcast_kit.rpc.server import GrpcServer, run_until_signal

from tests.support.echo import Echo, echo_service


async def slow() -> str:
    """Answers after half a second."""
    logging.getLogger(__name__).info("called with %s", EnrolmentToken.create(bytes(32)).pack())
    telemetry.meter(__name__).create_counter("calls").add(1)
    print("called", flush=True)
    await asyncio.sleep(0.5)
    return "done"


async def for_ever() -> AsyncIterator[str]:
    """Answers ten times a second."""
    while True:
        yield "still here"
        await asyncio.sleep(0.1)


async def serve(directory: Path) -> None:
    """Serves until a signal."""
    installation = open_installation(directory, listen="localhost:0")
    echo = Echo()
    echo.get, echo.watch = slow, for_ever
    server = GrpcServer("localhost:0", installation.server, [echo_service(echo)])

    async def start() -> str:
        await server.start()
        return str(server.port)

    await run_until_signal(start, server.stop)


if __name__ == "__main__":
    logs.configure("kit-test", "json")
    telemetry.start("kit-test")
    try:
        asyncio.run(serve(Path(sys.argv[1])))
    finally:
        telemetry.stop()
