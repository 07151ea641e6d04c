"""Everything that hears one transmission: socket, windows, and the threads between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from fleetcast_wire.errors import GeometryError
from fleetcast_wire.geometry import PassLayout
from fleetcast_wire.packet import datagram_bytes
from fleetcast_wire.parity.fec import CODECS
from fleetcast_wire.seal import Opener

from fleetcast_agent.receiving.errors import TransmissionError
from fleetcast_agent.receiving.messages import ChunkMembers, PassPlanned, Welcome
from fleetcast_agent.receiving.multicast.decoding import Decoder
from fleetcast_agent.receiving.multicast.delivery import ChunkDelivery
from fleetcast_agent.receiving.multicast.listening import Listener
from fleetcast_agent.receiving.multicast.memory import MemoryPlan
from fleetcast_agent.receiving.multicast.reception.events import (
    ChunkArrived,
    CodewordCompleted,
    DeficitsCounted,
    Event,
    PassSettled,
)
from fleetcast_agent.receiving.multicast.reception.reception import Reception
from fleetcast_agent.receiving.multicast.sockets.datagrams import GroupSocket
from fleetcast_agent.receiving.multicast.sockets.interfaces import Interface
from fleetcast_agent.receiving.multicast.sockets.membership import announce_membership
from fleetcast_agent.receiving.multicast.sockets.readers import train_slots
from fleetcast_agent.receiving.writing.download import Download

_TRAINS = 96
"""Trains that there is room for: as many as are taken at once where they are short."""


class GroupReceiver:
    """Hears a group until closed.

    Args:
        welcome: the sender's, with a group.
        handle: called on the event loop with deficits, settled passes, and chunks that were damaged.

    Raises:
        MulticastError: the group cannot be joined.
    """

    def __init__(
        self,
        welcome: Welcome,
        interface: Interface,
        download: Download,
        memory: MemoryPlan,
        handle: Callable[[DeficitsCounted | PassSettled | None], None],
    ) -> None:
        if welcome.keys is None:
            raise TransmissionError("the sender named a group and gave no keys")
        geometry = welcome.geometry
        stride = datagram_bytes(geometry.symbol_bytes)
        slots = _TRAINS * train_slots(stride)
        opener = Opener(welcome.keys, geometry.symbol_bytes, slots)
        total_symbols = int(download.table.stored_size_bytes.sum()) // geometry.symbol_bytes + 1
        memories = memory.memories(geometry, total_symbols)
        self._geometry = geometry
        self._download = download
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._reception = Reception(opener, geometry, memories, ~download.held, welcome.keys.tag)
        self._socket = GroupSocket(
            welcome.group,
            welcome.port,
            interface=interface,
            source_address=welcome.source_address,
            buffer=opener.buffer,
            stride=stride,
            receive_buffer_bytes=memory.receive_buffer_bytes,
        )
        self._membership = (welcome.group, interface)
        self._past_overflow_count = download.overflow_count
        download.count(self._reception.counts)
        self._listener = Listener(self._socket, self._reception, self._handle_events, stride=stride)
        codec = CODECS.get(geometry.codec)
        self._decoder = Decoder(codec, geometry, self._settle_codeword) if codec else None
        self._delivery = ChunkDelivery(download, self._take_back)
        self._listener.start()
        self._listener.post(memories.make_ready)

    @property
    def reception(self) -> Reception:
        """Its counts may be read at any time."""
        return self._reception

    @property
    def overflow_count(self) -> int:
        """Datagrams that this socket dropped."""
        return self._socket.overflow_count

    @property
    def claimed(self) -> ChunkMembers:
        """Chunks held or on their way to the target."""
        return ~self._reception.wanted

    def start_pass(self, plan: PassPlanned) -> None:
        """Begin a pass.

        Raises:
            TransmissionError: the plan does not fit the image.
        """
        try:
            layout = PassLayout(self._geometry, plan.chunks.nonzero()[0], self._download.table.stored_size_bytes)
        except GeometryError as error:
            raise TransmissionError(f"the plan of pass {plan.pass_number} cannot be used: {error}") from error
        self._listener.post(partial(self._reception.start_pass, plan.pass_number, layout))

    def end_pass(self, pass_number: int) -> None:
        """End a pass, when what is in the socket has been taken."""
        self._listener.post(partial(self._reception.end_pass, pass_number), when_drained=True)

    def note_held(self, chunk: int) -> None:
        """Want a chunk no more: it came by unicast."""
        self._listener.post(partial(self._reception.wanted.__setitem__, chunk, False))

    def announce(self) -> None:
        """Remind switches that this machine is a member of the group."""
        announce_membership(*self._membership)

    def update_overflow(self) -> None:
        """Bring the download's count of overflows up to date."""
        self._download.overflow_count = self._past_overflow_count + self._socket.overflow_count

    @property
    def failure(self) -> Exception | None:
        """A defect that ended the listening."""
        return self._listener.failure

    def close(self) -> None:
        """Leave the group; return when no thread uses the windows any more. Blocks."""
        self._listener.stop()
        if self._decoder is not None:
            self._decoder.close()
        self._delivery.wait()
        self._listener.forget()
        self._reception.close()

    def _handle_events(self, events: Sequence[Event]) -> None:
        self._delivery.deliver([event for event in events if isinstance(event, ChunkArrived)])
        for event in events:
            match event:
                case CodewordCompleted():
                    if self._decoder is not None:
                        self._decoder.submit(event)
                case DeficitsCounted() | PassSettled():
                    self._loop.call_soon_threadsafe(self._handle, event)

    def _take_back(self, answers: Sequence[tuple[ChunkArrived, bool]]) -> None:
        """Let the reception know what became of chunks; called on a writer's thread."""
        damaged = not all(proven for _, proven in answers)
        self._listener.post(partial(self._settle_chunks, answers), wake=damaged)
        if damaged:
            self._loop.call_soon_threadsafe(self._handle, None)

    def _settle_chunks(self, answers: Sequence[tuple[ChunkArrived, bool]]) -> None:
        for event, proven in answers:
            self._reception.settle_chunk(event, proven)

    def _settle_codeword(self, completed: CodewordCompleted, rebuilt: bool) -> None:
        self._listener.post(partial(self._reception.settle_codeword, completed, rebuilt))
