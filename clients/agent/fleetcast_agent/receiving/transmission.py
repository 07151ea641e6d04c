"""The conversation with one sender: joins its transmission, hears its group, and answers what it asks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
from fleetcast.sender.v1.transmission_service_pb2_grpc import TransmissionServiceStub
from fleetcast_kit.errors import from_rpc_error
from fleetcast_kit.process import semconv, telemetry
from fleetcast_kit.values.addresses import split_address
from fleetcast_wire.memory import Buffer
from fleetcast_wire.parity.fec import CODECS
from opentelemetry.trace import Span

from fleetcast_agent.receiving import convert
from fleetcast_agent.receiving.errors import (
    GroupUnusableError,
    MulticastError,
    SenderDismissedError,
    SenderLostError,
    TransmissionError,
)
from fleetcast_agent.receiving.messages import (
    Assignment,
    PassEnded,
    PassPlanned,
    ReceiverLimits,
    ReceptionTotals,
    SenderDismissal,
    UnicastOffered,
    Welcome,
)
from fleetcast_agent.receiving.multicast.group_receiver import GroupReceiver
from fleetcast_agent.receiving.multicast.memory import MemoryPlan
from fleetcast_agent.receiving.multicast.reception.events import DeficitsCounted, PassSettled
from fleetcast_agent.receiving.multicast.sockets.network import Network
from fleetcast_agent.receiving.timing import Timing
from fleetcast_agent.receiving.unicast import ChunkFetcher
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.download import Download

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)


async def fetch_chunk_table(
    channel: grpc.aio.Channel, assignment: Assignment, *, timeout_seconds: float = Timing.chunk_table
) -> ChunkTable:
    """Returns the chunk table of the assigned image, proven against its digest.

    Raises:
        SenderLostError: the sender does not give it.
        ChunkTableError: it is not that of the image.
    """
    stub = TransmissionServiceStub(channel)
    request = convert.chunk_table_request(assignment.transmission)
    try:
        responses = [response async for response in stub.GetChunkTable(request, timeout=timeout_seconds)]
    except grpc.aio.AioRpcError as error:
        raise SenderLostError(from_rpc_error(error, address=assignment.sender_address).message) from error
    return await asyncio.to_thread(convert.chunk_table_of, responses, assignment.image)


async def fetch_head(
    channel: grpc.aio.Channel, assignment: Assignment, table: ChunkTable, length: int, *, timeout_seconds: float
) -> bytes:
    """Returns the chunks with the first `length` bytes of the image, proven, without writing them anywhere.

    Raises:
        SenderLostError: the sender does not give them, or gives damaged ones.
    """
    manifest = table.manifest
    chunks = range(min(math.ceil(length / manifest.chunk_size_bytes), manifest.chunk_count))
    wanted = np.zeros(manifest.chunk_count, np.bool_)
    wanted[: len(chunks)] = ~manifest.zero[: len(chunks)]
    content: dict[int, Buffer | None] = {chunk: bytes(manifest.chunk_bytes(chunk)) for chunk in chunks}
    request = convert.fetch_request(assignment.transmission, wanted)
    try:
        async for response in TransmissionServiceStub(channel).FetchChunks(request, timeout=timeout_seconds):
            if response.chunk in content:
                content[response.chunk] = await asyncio.to_thread(table.prove, response.chunk, response.stored)
                wanted[response.chunk] = False
    except grpc.aio.AioRpcError as error:
        raise SenderLostError(from_rpc_error(error, address=assignment.sender_address).message) from error
    found = [content[chunk] for chunk in chunks]
    if wanted.any() or None in found:
        raise SenderLostError("the sender gave no whole beginning of the image")
    return b"".join(bytes(part) for part in found if part is not None)


class TransmissionStream:
    """One stay in one transmission.

    Whether this machine hears the group is for the sender to judge, from the reports: it alone knows what was sent
    and whether others hear it, and whether it stood still itself.

    Args:
        channel: to the sender.
        network: says how this machine hears multicast, if it does.
        notice: called with sentences for people.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        assignment: Assignment,
        download: Download,
        *,
        memory: MemoryPlan,
        network: Network,
        timing: Timing,
        notice: Callable[[str], None],
    ) -> None:
        self._stub = TransmissionServiceStub(channel)
        self._assignment = assignment
        self._download = download
        self._memory = memory
        self._network = network
        self._timing = timing
        self._notice = notice
        self._outbox: asyncio.Queue[Any] = asyncio.Queue()
        self._group: GroupReceiver | None = None
        self._fetcher = ChunkFetcher(self._stub, assignment.transmission, download, self._note_fetched)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequence = 0
        self._report_interval_seconds = 0.0
        self._welcomed = asyncio.Event()
        self._ended_pass = 0
        self._pass_span: Span | None = None
        self._warned = False

    async def run(self) -> None:
        """Take part until everything is held.

        Raises:
            SenderLostError: the sender is gone, or took this machine out.
            GroupUnusableError: its group cannot be joined on this machine.
            TransmissionError: it does not follow the protocol.
        """
        call = self._stub.Receive(self._requests())
        reader = asyncio.create_task(self._read(call), name="transmission")
        reporter = asyncio.create_task(self._report(), name="reports")
        completed = asyncio.create_task(self._download.content_completed.wait())
        try:
            await asyncio.wait({reader, reporter, completed}, return_when=asyncio.FIRST_COMPLETED)
            if completed.done():
                self._outbox.put_nowait(convert.done_message())
                self._outbox.put_nowait(None)
                await asyncio.wait({reader}, timeout=self._timing.goodbye)
                return
            for task in (reporter, reader):
                if task.done():
                    task.result()
            raise SenderLostError(f"the sender at {self._assignment.sender_address} ended the stream")
        finally:
            await self._stop(call, reader, reporter, completed)

    async def _stop(self, call: Any, *tasks: asyncio.Task[Any]) -> None:
        everything = [*tasks, *self._tasks]
        for task in everything:
            task.cancel()
        call.cancel()
        self._outbox.put_nowait(None)  # gRPC leaves the requests of a broken stream waiting
        await asyncio.gather(*everything, return_exceptions=True)
        self._end_pass_span()
        if self._group is not None:
            self._group.update_overflow()
            await asyncio.to_thread(self._group.close)

    async def _requests(self) -> AsyncIterator[Any]:
        limits = ReceiverLimits(
            unicast_only=bool(self._network.no_multicast_reason),
            window_memory_bytes=self._memory.symbols_bytes,
            max_payload_bytes=self._network.max_payload_bytes,
            codecs=tuple(CODECS),
            receive_buffer_bytes=self._memory.receive_buffer_bytes,
            link_bits_per_second=self._network.link_bits_per_second,
        )
        yield convert.receiver_join_message(self._assignment.transmission, self._download.held, limits)
        while (message := await self._outbox.get()) is not None:
            yield message

    async def _read(self, call: Any) -> None:
        chunk_count = self._download.table.manifest.chunk_count
        try:
            async for response in call:
                match convert.from_sender(response, chunk_count):
                    case Welcome() as welcome:
                        self._take_welcome(welcome)
                    case PassPlanned() as plan:
                        self._take_plan(plan)
                    case PassEnded(pass_number):
                        self._take_pass_end(pass_number)
                    case UnicastOffered(chunks):
                        self._spawn(self._fetch(chunks))
                    case SenderDismissal(reason):
                        raise SenderDismissedError(reason or "the sender dismissed this machine")
        except grpc.aio.AioRpcError as error:
            raise SenderLostError(from_rpc_error(error, address=self._assignment.sender_address).message) from error

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What the sender says.

    def _take_welcome(self, welcome: Welcome) -> None:
        self._report_interval_seconds = welcome.report_interval_seconds
        self._welcomed.set()
        if self._group is not None:
            raise TransmissionError("the sender welcomed this machine twice")
        if welcome.group and not self._network.no_multicast_reason:
            host = split_address(self._assignment.sender_address)[0]
            try:
                interface = self._network.interface_for(welcome.group, host)
                self._group = GroupReceiver(welcome, interface, self._download, self._memory, self._take_event)
            except MulticastError as error:
                raise GroupUnusableError(error.message) from error
        self._outbox.put_nowait(convert.ready_message())

    def _take_plan(self, plan: PassPlanned) -> None:
        if self._group is None:
            return
        self._group.start_pass(plan)
        self._end_pass_span()
        self._pass_span = _tracer.start_span(
            f"pass {plan.pass_number}",
            attributes={semconv.PASS: plan.pass_number, semconv.CHUNK_COUNT: int(plan.chunks.sum())},
        )

    def _take_pass_end(self, pass_number: int) -> None:
        self._ended_pass = pass_number
        if self._group is None:
            self._say_holding(pass_number)
            return
        self._group.end_pass(pass_number)

    async def _fetch(self, chunks: Any) -> None:
        await self._fetcher.fetch(chunks)
        self._say_holding(self._ended_pass)

    def _note_fetched(self, chunk: int) -> None:
        if self._group is not None:
            self._group.note_held(chunk)

    # What the group brings.

    def _take_event(self, event: DeficitsCounted | PassSettled | None) -> None:
        match event:
            case DeficitsCounted():
                self._outbox.put_nowait(convert.deficits_message(event))
            case PassSettled(pass_number):
                self._spawn(self._answer(pass_number))
            case None:  # a chunk that was counted as held is not
                if self._ended_pass:
                    self._say_holding(self._ended_pass)

    async def _answer(self, pass_number: int) -> None:
        deadline = time.monotonic() + self._timing.settle
        while self._download.holding.backlog_bytes and time.monotonic() < deadline:  # noqa: ASYNC110 - threads count it
            await asyncio.sleep(0.005)
        self._say_holding(pass_number)
        self._end_pass_span()

    def _end_pass_span(self) -> None:
        span, self._pass_span = self._pass_span, None
        if span is not None:
            span.end()

    def _say_holding(self, pass_number: int) -> None:
        held = self._group.claimed if self._group is not None else self._download.held
        self._outbox.put_nowait(convert.holding_message(pass_number, held))

    # Reports.

    async def _report(self) -> None:
        announced_at = time.monotonic()
        await self._welcomed.wait()
        while True:
            await asyncio.sleep(self._report_interval_seconds)
            if self._group is not None and time.monotonic() - announced_at > self._timing.announce:
                announced_at = time.monotonic()
                self._group.announce()
            self._sequence += 1
            self._outbox.put_nowait(convert.report_message(self._totals()))
            if self._group is None:
                continue
            if self._group.failure is not None:
                raise self._group.failure
            if self._group.reception.counts.forged_datagram_count and not self._warned:
                self._warned = True
                self._notice(
                    "a machine of this session forges what the sender sends: that is told apart and harms no image; "
                    "find the machine, it has joined with a credential of this server"
                )

    def _totals(self) -> ReceptionTotals:
        holding = self._download.holding
        if self._group is None:
            return ReceptionTotals(self._sequence, -1, 0, 0, holding.backlog_bytes, holding.written_bytes, 0, 0, 0)
        self._group.update_overflow()
        counts = self._group.reception.counts
        return ReceptionTotals(
            sequence=self._sequence,
            highest_packet_counter=counts.highest_packet_counter,
            datagram_count=counts.datagram_count,
            overflow_datagram_count=min(self._group.overflow_count, counts.absent_datagram_count),
            backlog_bytes=holding.backlog_bytes,
            written_bytes=holding.written_bytes,
            dropped_window_count=counts.dropped_window_count,
            pass_number=counts.pass_number,
            rejected_datagram_count=counts.rejected_datagram_count,
        )
