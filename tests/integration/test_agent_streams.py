from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
from fleetcast.scheduler.v1 import participation_service_pb2
from fleetcast.scheduler.v1.participation_service_pb2_grpc import (
    ParticipationServiceServicer,
    add_ParticipationServiceServicer_to_server,
)
from fleetcast_agent.receiving.messages import JoinRequest, Totals
from fleetcast_agent.receiving.participation import Participation

from tests.support.waiting import until

WAIT_SECONDS = 10.0


class Scheduler(ParticipationServiceServicer):
    """Notes what each stream says."""

    def __init__(self) -> None:
        self.streams: list[list[str]] = []

    async def Participate(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        said: list[str] = []
        self.streams.append(said)
        async for request in requests:
            said.append(request.WhichOneof("message"))
            yield participation_service_pb2.ParticipateResponse(acknowledged_sequence=request.sequence)

    async def heard(self, stream: int, *said: str) -> None:
        await until(lambda: len(self.streams) > stream and self.streams[stream] == list(said))


async def serve(scheduler: Scheduler, port: int = 0) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server()
    add_ParticipationServiceServicer_to_server(scheduler, server)
    port = server.add_insecure_port(f"localhost:{port}")
    await server.start()
    return server, port


def waiting_requests() -> int:
    """Returns how many streams' requests gRPC still waits for."""
    return sum("_consume_request_iterator" in repr(task) for task in asyncio.all_tasks())


async def test_a_stream_that_is_being_opened_anew_can_be_ended() -> None:
    scheduler = Scheduler()
    server, port = await serve(scheduler)
    join = JoinRequest("sessions/s", "", "pc-1", "", 0, "")
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        participation = Participation(channel, join, address="here", patience_seconds=60, notice=lambda _: None)
        await scheduler.heard(0, "join")
        participation.rejoin(join)
        await asyncio.wait_for(participation.close(), WAIT_SECONDS)
    await server.stop(0)


async def test_a_broken_stream_takes_nothing_of_what_is_said_on_the_next_one() -> None:
    scheduler, complaints = Scheduler(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    server, port = await serve(scheduler)
    join = JoinRequest("sessions/s", "", "pc-1", "", 0, "")
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        participation = Participation(channel, join, address="here", patience_seconds=60, notice=lambda _: None)
        await scheduler.heard(0, "join")
        for stream in (1, 2):
            await server.stop(0)
            server, _ = await serve(scheduler, port)
            await scheduler.heard(stream, "join")
            assert waiting_requests() == 1
        participation.report(Totals())
        await scheduler.heard(2, "join", "progress")
        assert await participation.finish(Totals())
        await scheduler.heard(2, "join", "progress", "outcome")
        await server.stop(0)
        await participation.close()
    del participation
    gc.collect()
    await asyncio.sleep(0)
    assert not waiting_requests()
    assert not complaints
