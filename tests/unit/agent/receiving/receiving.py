"""A receiver in memory around the reception: opens, rebuilds and proves at once, without sockets or threads."""

from collections.abc import Iterable

import numpy as np
import zstandard
from fleetcast_agent.receiving.multicast.decoding import rebuild
from fleetcast_agent.receiving.multicast.reception.events import (
    ChunkArrived,
    CodewordCompleted,
    DeficitsCounted,
    PassSettled,
)
from fleetcast_agent.receiving.multicast.reception.reception import Reception
from fleetcast_agent.receiving.multicast.reception.windows import WindowMemories
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import SealKeys
from fleetcast_wire.manifest import chunk_digest
from fleetcast_wire.parity.fec import CODECS
from fleetcast_wire.seal import Opener

from tests.unit.agent.receiving.transmitting import StoredImage


class MemoryReceiver:
    """Collects an image."""

    def __init__(self, keys: SealKeys, geometry: Geometry, image: StoredImage, ring: int = 4, slots: int = 64) -> None:
        self.image = image
        self.geometry = geometry
        self.opener = Opener(keys, geometry.symbol_bytes, slots)
        self.wanted = ~image.manifest.zero
        memories = WindowMemories(geometry, geometry.window_symbols, ring)
        self.reception = Reception(self.opener, geometry, memories, self.wanted, keys.tag)
        self.content = bytearray(image.manifest.size_bytes)
        self.reports: list[DeficitsCounted] = []
        self.settled: list[int] = []
        self.damaged: list[int] = []
        self.arrivals: list[int] = []
        self.hold = False
        """While true, chunks are not settled: the disk hangs."""
        self._unsettled: list[ChunkArrived] = []
        self._slots = slots
        self.now = 0.0

    def receive(self, datagrams: Iterable[bytes]) -> None:
        """Take datagrams in batches as large as the slots allow."""
        stride, filled = self.opener.stride, 0
        for datagram in datagrams:
            if len(datagram) == stride:
                self.opener.buffer[filled * stride : (filled + 1) * stride] = datagram
                filled += 1
            if filled == self._slots or (filled and len(datagram) != stride):
                self.reception.receive(np.arange(filled), self.now)
                filled = 0
                self.work()
            if len(datagram) != stride:
                self.reception.receive_other(datagram, self.now)
        if filled:
            self.reception.receive(np.arange(filled), self.now)
        self.work()

    def work(self) -> None:
        """Do what the events ask for, until nothing is left."""
        while events := self.reception.take_events():
            for event in events:
                match event:
                    case ChunkArrived():
                        self.arrivals.append(event.chunk)
                        self._unsettled.append(event)
                    case CodewordCompleted():
                        rebuild(event, CODECS[self.geometry.codec], self.geometry)
                        self.reception.settle_codeword(event, True)
                    case DeficitsCounted():
                        self.reports.append(event)
                    case PassSettled():
                        self.settled.append(event.pass_number)
            if not self.hold:
                self.settle()

    def settle(self) -> None:
        """Prove and write what arrived."""
        for event in self._unsettled:
            content = bytes(event.stored)
            if self.image.zstd[event.chunk]:
                try:
                    content = zstandard.decompress(content)
                except zstandard.ZstdError:
                    content = b""
            proven = chunk_digest(content) == self.image.manifest.digests[event.chunk].tobytes()
            if proven:
                start = event.chunk * self.image.manifest.chunk_size_bytes
                self.content[start : start + len(content)] = content
            else:
                self.damaged.append(event.chunk)
            self.reception.settle_chunk(event, proven)
        self._unsettled = []

    @property
    def complete(self) -> bool:
        return not self.wanted.any() and self.content == self.image.content

    def take_reports(self) -> list[DeficitsCounted]:
        reports, self.reports = self.reports, []
        return reports

    @property
    def lacking(self) -> list[int]:
        """The chunks that are still wanted."""
        return [int(chunk) for chunk in np.flatnonzero(self.wanted)]
