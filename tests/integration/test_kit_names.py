"""Names of hosts in a network whose name server does not answer."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.lab import NetworkLab

DIAL = """
import asyncio, socket
import fleetcast_kit  # as every process does first: gRPC reads its settings when it is imported
import grpc
async def dial():
    async with grpc.aio.insecure_channel(f"{socket.gethostname()}:1") as channel:
        try:
            await channel.unary_unary("/a/b")(b"", timeout=30)
        except grpc.aio.AioRpcError as error:
            print(error.code().name)
asyncio.run(dial())
"""


@pytest.mark.lab
def test_a_name_in_the_hosts_file_is_dialled_at_once_where_no_name_server_answers(
    open_lab: Callable[..., NetworkLab],
) -> None:
    lab = open_lab(receiver_count=1)
    host = lab.receivers[0]
    known = lab.run(host, ["getent", "hosts", lab.run(host, ["hostname"]).stdout.strip()], check=False)
    if known.returncode:
        pytest.skip("this host's own name is not in its hosts file")
    lab.run(host, ["ip", "route", "add", "default", "via", lab.sender.address])  # where questions go, and are lost
    began = time.monotonic()
    ended: subprocess.CompletedProcess[str] = lab.run(host, [sys.executable, "-c", DIAL])
    assert ended.stdout.strip() == "UNAVAILABLE"
    assert time.monotonic() - began < 8
