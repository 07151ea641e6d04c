"""Follows the scheduler's assignments from sender to sender, until everything is held.

A sender may vanish, be replaced, or take this machine out; what is held stays, and the next one brings the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.rpc.channel import open_channel

from fleetcast_agent.receiving.errors import (
    ChunkTableError,
    GroupUnusableError,
    SenderDismissedError,
    SenderLostError,
    TransmissionError,
)
from fleetcast_agent.receiving.messages import FIRST_LOOK_BYTES, HEAD_BYTES, Assignment, Totals
from fleetcast_agent.receiving.multicast.memory import MemoryPlan
from fleetcast_agent.receiving.multicast.sockets.network import Network
from fleetcast_agent.receiving.participation import Participation
from fleetcast_agent.receiving.timing import Timing
from fleetcast_agent.receiving.transmission import TransmissionStream, fetch_chunk_table, fetch_head
from fleetcast_agent.receiving.writing.download import Download
from fleetcast_agent.receiving.writing.journal import Journal
from fleetcast_agent.receiving.writing.target import Target
from fleetcast_agent.retrying import backoff_seconds

_LEAST_WAIT_SECONDS = 0.5
"""Before the same sender is asked again: the scheduler may be about to name another."""


class AssignmentFollower:
    """Receives from the sender that the scheduler names, and from the next one when it names another.

    Args:
        participation: is told when a sender cannot be used, and when this machine leaves the group or comes back.
        rejoin: has the scheduler told anew how this machine takes part.
        server: HOST:PORT of the scheduler; its channel is used for a sender at the same place, a connection less.
        notice: called with sentences for people.
        examine: awaited with the beginning of the image before the first byte is written, see `ReceiveRequest`.
    """

    def __init__(
        self,
        participation: Participation,
        *,
        rejoin: Callable[[], None],
        server: str,
        credentials: Credentials,
        channel: grpc.aio.Channel,
        network: Network,
        memory: MemoryPlan,
        target: Target,
        journal: Journal,
        timing: Timing,
        notice: Callable[[str], None],
        examine: Callable[[bytes], Awaitable[bool]] | None = None,
    ) -> None:
        self._participation = participation
        self._rejoin = rejoin
        self._server = server
        self._credentials = credentials
        self._channel = channel
        self._network = network
        self._memory = memory
        self._target = target
        self._journal = journal
        self._timing = timing
        self._notice = notice
        self._examine = examine
        self._assignments: asyncio.Queue[Assignment] = asyncio.Queue()
        self._retry_seconds = timing.group_retry
        self.download: Download | None = None
        """Made when the first sender has given the chunk table."""

    def assign(self, assignment: Assignment) -> None:
        """Take what the scheduler names."""
        self._assignments.put_nowait(assignment)

    async def first_assignment(self) -> Assignment:
        """Returns the first assignment, when it has come."""
        return await self._assignments.get()

    def totals(self) -> Totals:
        """Returns what was received so far."""
        return self.download.totals() if self.download is not None else Totals()

    async def receive(self, assignment: Assignment) -> Download:
        """Receive from one sender after the other until everything is held.

        Raises:
            FleetcastError: the target failed.
        """
        attempt = 0
        while True:
            before = self.totals().written_bytes
            try:
                moved = await self._receive_from(assignment)
            except GroupUnusableError as error:
                self._leave_group(error.message)
                continue
            except (SenderLostError, TransmissionError, ChunkTableError) as error:
                attempt = 0 if self.totals().written_bytes > before else attempt + 1
                if attempt <= 1:
                    self._notice(f"waiting for a sender: {error.message}")
                if attempt or not isinstance(error, SenderDismissedError):
                    self._participation.sender_unreachable(assignment.transmission, error.message)
                assignment = await self._next_assignment(assignment, backoff_seconds(attempt))
                continue
            if moved is None:
                if self.download is None:
                    raise SenderLostError("the sender gave no chunk table")
                return self.download
            assignment = moved

    def _leave_group(self, reason: str) -> None:
        """Go on by unicast, and try the group again after a while: cables and switches come back."""
        self._network.leave_group(reason, self._retry_seconds)
        self._retry_seconds = min(2 * self._retry_seconds, self._timing.group_retry_most)
        self._notice(f"going on by unicast: {reason}")
        self._rejoin()

    async def _return_to_group(self, assignment: Assignment) -> Assignment:
        """Returns the same assignment when it is time to try the group again."""
        await self._network.time_to_return()
        self._network.return_to_group()
        self._notice("trying to receive by multicast again")
        self._rejoin()
        return assignment

    async def _next_assignment(self, last: Assignment, patience_seconds: float) -> Assignment:
        """Returns the next assignment, or the last one again when none comes in time."""
        await asyncio.sleep(min(patience_seconds, _LEAST_WAIT_SECONDS))
        try:
            last = await asyncio.wait_for(self._assignments.get(), patience_seconds)
        except TimeoutError:
            return last
        while not self._assignments.empty():
            last = self._assignments.get_nowait()
        return last

    async def _receive_from(self, assignment: Assignment) -> Assignment | None:
        """Receive from one sender; return None when everything is held, or where to receive instead."""
        async with self._channel_to(assignment.sender_address) as channel:
            if self.download is None:
                table = await fetch_chunk_table(channel, assignment, timeout_seconds=self._timing.chunk_table)
                for length in (FIRST_LOOK_BYTES, HEAD_BYTES) if self._examine is not None else ():
                    timeout_seconds = self._timing.chunk_table
                    head = await fetch_head(channel, assignment, table, length, timeout_seconds=timeout_seconds)
                    if self._examine is None or not await self._examine(head):
                        break
                self.download = await Download.open(assignment.image, table, self._target, self._journal)
            stream = TransmissionStream(
                channel,
                assignment,
                self.download,
                memory=self._memory,
                network=self._network,
                timing=self._timing,
                notice=self._notice,
            )
            receive = asyncio.create_task(unless_failed(self.download, stream.run()))
            elsewhere = [asyncio.create_task(self._moved(assignment))]
            if self._network.away_from_group:
                elsewhere.append(asyncio.create_task(self._return_to_group(assignment)))
            try:
                await asyncio.wait({receive, *elsewhere}, return_when=asyncio.FIRST_COMPLETED)
                if receive.done():
                    receive.result()
                    return None
                return next(task.result() for task in elsewhere if task.done())
            finally:
                for task in (receive, *elsewhere):
                    task.cancel()
                await asyncio.gather(receive, *elsewhere, return_exceptions=True)

    @asynccontextmanager
    async def _channel_to(self, address: str) -> AsyncIterator[grpc.aio.Channel]:
        """Open a channel to a sender, or lend the scheduler's where both are one server."""
        if address == self._server:
            yield self._channel
            return
        async with open_channel(address, self._credentials) as channel:
            yield channel

    async def _moved(self, assignment: Assignment) -> Assignment:
        """Returns the first assignment that names another transmission or sender."""
        while True:
            other = await self._assignments.get()
            if (other.transmission, other.sender_address) != (assignment.transmission, assignment.sender_address):
                return other


async def unless_failed(download: Download, work: Awaitable[None]) -> None:
    """Wait for work, or raise what made it pointless.

    Raises:
        FleetcastError: the target failed.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, download.failed}, return_when=asyncio.FIRST_COMPLETED)
        if download.failed.done():
            download.failed.result()
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
