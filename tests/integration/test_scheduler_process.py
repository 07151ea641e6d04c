"""The command on its own, killed for real."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from fleetcast.scheduler.v1 import session_pb2
from fleetcast.scheduler.v1.session_service_pb2_grpc import SessionServiceStub
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import GrpcServer

from tests.integration.scheduler_actors import FakeCatalog, FakeMachine, FakeSender
from tests.integration.test_scheduler import STATES, create, until_state
from tests.support.waiting import until

COUNT = 12


class Scheduler:
    """`fleetcast-scheduler run` in a process of its own, beside a catalog in this one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = CertificateAuthority.open(directory / "authority")
        self.catalog = FakeCatalog()
        own = self.authority.issue_credentials(Identity.of(Role.SERVICE, "catalog"), names=["localhost"])
        self.catalog_server = GrpcServer("localhost:0", ServerCredentials(own), [self.catalog.service()])
        self.port = 0
        self.channels: list[grpc.aio.Channel] = []
        self._process: Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "fleetcast_scheduler", "run"),
            *("--data-dir", str(self.directory), "--listen", f"localhost:{self.port}"),
            *("--catalog", f"localhost:{self.catalog_server.port}"),
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        async with asyncio.timeout(30):
            while not (found := re.search(rb"listening on \S+:(\d+)", await self._process.stderr.readline())):
                assert self._process.returncode is None
        self.port = int(found[1])

    async def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        _, _ = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode

    def channel(self, role: Role, identifier: str) -> grpc.aio.Channel:
        credentials = self.authority.issue_credentials(Identity.of(role, identifier))
        self.channels.append(open_channel(f"localhost:{self.port}", credentials))
        return self.channels[-1]


@pytest.fixture
async def scheduler(tmp_path: Path) -> AsyncIterator[Scheduler]:
    running = Scheduler(tmp_path)
    await running.catalog_server.start()
    await running.start()
    try:
        yield running
        for channel in running.channels:
            await channel.close()
    finally:
        code = await running.end(signal.SIGTERM)
        await running.catalog_server.stop(0)
    assert code == 0


async def test_killed_at_any_moment_it_goes_on_where_it_was(scheduler: Scheduler) -> None:
    moments = random.Random(1)
    operator = SessionServiceStub(scheduler.channel(Role.ADMINISTRATOR, "operator"))
    sender = FakeSender(scheduler)
    await sender.connect()
    session = await create(operator, start_rules=session_pb2.StartRules(min_clients=COUNT))
    machines = [FakeMachine(scheduler, str(number)) for number in range(COUNT)]
    done: set[str] = set()

    async def receive(machine: FakeMachine) -> None:
        while machine.name not in done:
            try:
                await machine.join(session=session.name)
                await machine.hear("assignment")
                await asyncio.sleep(moments.random() * 2)
                await machine.progress(1000)
                await machine.finish()
                await machine.hear("dismissal")
                done.add(machine.name)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, AssertionError, TimeoutError):
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        for machine in machines:
            tasks.create_task(receive(machine))
        for _ in range(2):
            await asyncio.sleep(0.2 + moments.random())
            await scheduler.end(signal.SIGKILL)
            await scheduler.start()
            await sender.connect()
    ended = await until_state(operator, session.name, STATES.STATE_COMPLETED)
    assert ended.succeeded_count == ended.participant_count == COUNT
    await until(lambda: not sender.running)
    await until(lambda: not scheduler.catalog.held)
