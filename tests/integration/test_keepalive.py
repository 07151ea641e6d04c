"""A process that hangs while its host still acknowledges: both ends of a connection notice it."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.joining.installation import open_installation
from fleetcast_kit.rpc.channel import KEEPALIVE, Keepalive, open_channel
from fleetcast_kit.rpc.server import GrpcServer
from google.protobuf.wrappers_pb2 import StringValue

from tests.support.echo import Echo, EchoStub, echo_service

SOON = Keepalive(2, 1)

CLIENT = """
import asyncio, sys
from pathlib import Path
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.rpc.channel import open_channel
from google.protobuf.wrappers_pb2 import StringValue
from tests.support.echo import EchoStub

async def main():
    async with open_channel(sys.argv[1], Credentials.load(Path(sys.argv[2]))) as channel:
        async for _ in EchoStub(channel).Watch(StringValue()):
            print("hears", flush=True)

asyncio.run(main())
"""


def test_everybody_notices_within_sixteen_seconds() -> None:
    assert KEEPALIVE.seconds + KEEPALIVE.timeout_seconds <= 16


async def started(*arguments: str) -> asyncio.subprocess.Process:
    """Returns a process whose output can be read."""
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": "."}
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, env=environment)


async def first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


async def end(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def test_a_client_notices_a_server_that_hangs(tmp_path: Path) -> None:
    process = await started("-m", "tests.support.served", str(tmp_path))
    try:
        port = int(await first_line(process))
        credentials = Credentials.load(tmp_path / "administrator")
        async with open_channel(f"localhost:{port}", credentials, keepalive=SOON) as channel:
            watch = EchoStub(channel).Watch(StringValue())
            await watch.read()
            process.send_signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as noticed:
                async for _ in watch:
                    pass
            assert noticed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - stopped_at < 16
    finally:
        await end(process)


async def test_a_server_notices_a_client_that_hangs(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def for_ever() -> AsyncIterator[str]:
        try:
            yield "still here"
            await asyncio.Event().wait()
        finally:
            gone.set()

    installation = open_installation(tmp_path, listen="localhost:0")
    echo = Echo()
    echo.watch = for_ever
    server = GrpcServer("localhost:0", installation.server, [echo_service(echo)], keepalive=SOON)
    await server.start()
    process = await started("-c", CLIENT, f"localhost:{server.port}", str(tmp_path / "administrator"))
    try:
        assert await first_line(process) == "hears"
        process.send_signal(signal.SIGSTOP)
        await asyncio.wait_for(gone.wait(), 16)
    finally:
        await end(process)
        await server.stop(0)
