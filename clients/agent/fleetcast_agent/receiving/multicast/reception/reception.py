"""What one machine makes of the datagrams of one transmission. WIRE.md, sections 4 to 7, from the receiver's side.

Pure: datagrams lie in the slots of an `Opener`, `now` is an argument, and what follows comes out as events. One thread
at a time; nothing here blocks. Genuine symbols are opened straight into their place in a window, by the train.
"""

from __future__ import annotations

import logging
import struct
from itertools import pairwise

import numpy as np
from fleetcast_wire.errors import PacketError
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.memory import Numbers, SymbolMemory
from fleetcast_wire.native import NativeRun
from fleetcast_wire.packet import SIGNED_KINDS, VERSION, Header, Kind, unpack_header, unpack_mark
from fleetcast_wire.seal import Opener, Signed
from numpy.typing import NDArray

from fleetcast_agent.receiving.counts import ReceptionCounts
from fleetcast_agent.receiving.multicast.reception.events import ChunkArrived, Event
from fleetcast_agent.receiving.multicast.reception.forgery import KeptFingerprints, Signatures, fingerprints_in
from fleetcast_agent.receiving.multicast.reception.ring import WindowRing
from fleetcast_agent.receiving.multicast.reception.windows import Window, WindowMemories

_logger = logging.getLogger(__name__)

_EARLY_DATAGRAMS = 8192
"""12 MB, or 0.1 s at 1 Gbit/s."""
_PREFIX_OF_TRANSMISSION = 0xFF00_0000_FFFF_FFFF
"""Of the first 8 bytes of a datagram: version and tag, without kind and pass."""
_SYMBOL_MASK = 0xFFFF_FFFF


class Reception:
    """Collects the wanted chunks of a transmission from its datagrams.

    Args:
        opener: holds the keys and the slots that datagrams are received into.
        geometry: the transmission's numbers.
        memories: for windows; as many are collected at once as there are.
        wanted: shape (chunk_count,): which chunks are lacking; taken over.
        tag: of the transmission's datagrams.
    """

    def __init__(
        self, opener: Opener, geometry: Geometry, memories: WindowMemories, wanted: NDArray[np.bool_], tag: int
    ) -> None:
        self.counts = ReceptionCounts()
        self._ring = WindowRing(memories, wanted, self.counts, has_parity=bool(geometry.parity_symbols))
        self._opener = opener
        self._geometry = geometry
        raw = self._raw = np.frombuffer(opener.buffer, np.uint8).reshape(-1, opener.stride)
        self._prefixes = raw[:, :8].view(">u8")[:, 0]
        self._places = raw[:, 8:16].view(">u8")[:, 0]
        self._windows, self._symbols, self._counters = (opener.headers[it] for it in ("window", "symbol", "counter"))
        self._transmission_prefix = VERSION << 56 | tag
        self._source_prefix = np.uint64(0)
        self._scratch = SymbolMemory(geometry.symbol_bytes, 1)
        self._early: list[NDArray[np.uint8]] = []
        self._window: Window | None = None
        self._run: NativeRun | None = None
        self._mark_counter = -1
        self._now = 0.0
        self._signatures = Signatures(self._note_forgery)
        self._kept = KeptFingerprints()
        self.settle_codeword = self._ring.settle_codeword
        self.end_pass = self._ring.end_pass

    @property
    def pass_number(self) -> int:
        """The pass that is being received; 0 before the first plan."""
        return self._ring.pass_number

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """Shape (chunk_count,): which chunks are lacking, those on their way to the target not counted."""
        return self._ring.wanted

    @property
    def repairing(self) -> bool:
        """Whether a window lacks symbols that will not come before they are asked for."""
        return self._ring.repairing

    def take_events(self) -> list[Event]:
        """Returns what has happened since the last call."""
        events, self._ring.events = self._ring.events, []
        return events

    def start_pass(self, pass_number: int, layout: PassLayout) -> None:
        """Begin a pass; an earlier one is over. A plan that was given before is ignored."""
        if pass_number <= self.pass_number:
            return
        self._ring.start_pass(pass_number, layout)
        self._kept.take()
        self._source_prefix = np.uint64(self._transmission_prefix | Kind.SOURCE << 48 | pass_number << 32)
        early, self._early = self._early, []
        for datagrams in early:
            self._raw[: len(datagrams)] = datagrams
            self.receive(np.arange(len(datagrams)), self._now)

    def settle_chunk(self, arrived: ChunkArrived, proven: bool) -> None:
        """Take back the memory of a chunk that was written, or did not match its digest (then it is wanted again)."""
        if not proven:
            self._ring.doubt(arrived)
            self._suspect()
        self._ring.settle_chunk(arrived, proven)

    def _note_forgery(self) -> None:
        self.counts.forged_datagram_count += 1
        self._suspect()

    def _suspect(self) -> None:
        """Look at the sender's fingerprints from now on, and at those that came: a member forges."""
        if not self._ring.suspicious:
            _logger.warning("something wrong came by multicast: what comes is compared with what the sender signed")
            self._ring.suspect()
            self._window = self._run = None
        for signed in self._kept.take():
            self._prove(signed)

    def close(self) -> None:
        """Let go of the windows; the counts stay."""
        self._ring.close()
        self._window = self._run = None
        self._early.clear()

    # Datagrams.

    def receive(self, filled: Numbers, now: float) -> None:
        """Take the datagrams of the size of a sealed symbol in these of the opener's slots."""
        self._now = now
        while len(filled) and (taken := self._take_run(filled)):
            filled = filled[taken:]
        if len(filled):
            self._sort(filled, now)

    def _take_run(self, slots: Numbers) -> int:
        """Take source symbols of one window, as they usually come, in one go; return how many of the first slots."""
        number = int(self._windows[slots[0]])
        if self._ring.suspicious:
            return 0
        window = self._ring.window(number)
        if window is None:
            if self._prefixes[slots[0]] != self._source_prefix or not self._ring.possible(number):
                return 0
            if self._genuine_slot(slots[:1]) is None:
                return 1
            window = self._ring.admit(number, int(self._symbols[slots[0]]), self._now)
            if window is None:
                return 0
        if window is not self._window:
            beginning = struct.pack(">QI", self._source_prefix, window.number)
            self._window, self._run = window, self._opener.run(window.memory.source, beginning, window.held)
        if self._run is None:
            return 0
        self._run.open(slots)
        return self.take_opened(self._now)

    @property
    def run(self) -> NativeRun | None:
        """What opens the next symbols that usually come, before `receive` takes the others."""
        usual = self._window is not None and not self._window.closed and not self._ring.suspicious
        return self._run if usual else None

    def take_opened(self, now: float) -> int:
        """Take the symbols that `run` opened; return how many."""
        if self._window is None or self._run is None or not self._run.opened_count:
            return 0
        self._now = now
        opened = self._run.take()
        self._note_source(self._window, *opened)
        return opened.symbol_count

    def _note_source(self, window: Window, count: int, stop: int, first_counter: int, last_counter: int) -> None:
        """Note symbols that were opened and marked held, the last before `stop`."""
        self._count(count, first_counter, last_counter)
        self._ring.note_source(window, count, stop, self._now)

    def _sort(self, filled: Numbers, now: float) -> None:
        """Take datagrams of any kind."""
        prefixes = self._prefixes[filled]
        if (prefixes == self._source_prefix).all():
            self._take_symbols(Kind.SOURCE, filled)
            return
        values = prefixes.astype(np.uint64)
        ours = (values & np.uint64(_PREFIX_OF_TRANSMISSION)) == np.uint64(self._transmission_prefix)
        self.counts.rejected_datagram_count += int(np.count_nonzero(~ours))
        for value in np.unique(values[ours]).tolist():
            kind, pass_number = value >> 48 & 0xFF, value >> 32 & 0xFFFF
            slots = filled[values == np.uint64(value)]
            if kind in SIGNED_KINDS:
                for slot in slots.tolist():
                    stride = self._opener.stride
                    self.receive_other(bytes(self._opener.buffer[slot * stride : (slot + 1) * stride]), now)
            elif kind not in (Kind.SOURCE, Kind.PARITY):
                self.counts.rejected_datagram_count += len(slots)
            elif pass_number == self.pass_number + 1:
                self._keep(slots)
            elif pass_number != self.pass_number:
                self._skip(slots)
            else:
                self._take_symbols(Kind(kind), slots)

    def receive_other(self, datagram: bytes, now: float) -> None:
        """Take a datagram of any other size: something signed, or nothing of ours."""
        self._now = now
        try:
            header = unpack_header(datagram)
            if header.tag != self._transmission_prefix & _SYMBOL_MASK or header.kind not in SIGNED_KINDS:
                raise PacketError("neither a symbol nor something signed of this transmission")
            if header.kind is Kind.MARK:
                self._take_mark(header, datagram)
            else:
                self._take_fingerprints(self._opener.open(datagram))
        except PacketError:
            self.counts.rejected_datagram_count += 1

    def _take_mark(self, header: Header, datagram: bytes) -> None:
        if header.counter <= self._mark_counter:
            return  # a repetition, or late: newer marks say more
        signed = self._opener.open(datagram)
        mark = unpack_mark(signed.body)
        if not self._verified(signed):
            return
        self.counts.datagram_count += 1
        self._mark_counter = header.counter
        if header.pass_number == self.pass_number:
            self._ring.take_mark(mark)

    def _take_fingerprints(self, signed: Signed) -> None:
        header = signed.header
        self._count(1, header.counter, header.counter)
        if header.pass_number != self.pass_number:
            return
        if self._ring.suspicious:
            self._prove(signed)
            return
        due = self._signatures.due(self._now) or header.window > self._ring.position[0]
        if not due or self._verified(signed):
            self._kept.keep(signed)

    def _prove(self, signed: Signed) -> None:
        """Compare symbols with what the sender signed."""
        proof = fingerprints_in(signed)
        if proof is not None and self._ring.awaits(proof) and self._verified(signed):
            self._ring.prove(proof)

    def _verified(self, signed: Signed) -> bool:
        """Returns whether the sender signed this, and takes from its header how far the sender is."""
        if not self._signatures.verified(signed, self._now):
            self.counts.rejected_datagram_count += 1
            return False
        header = signed.header
        if self.counts.prove(header.counter):
            self.counts.pass_number = self._ring.pass_number
        if header.pass_number == self.pass_number:
            self._ring.note_position(header.window, header.symbol)
        return True

    def _keep(self, slots: Numbers) -> None:
        """Keep symbols that overtook the plan of their pass: it comes over TCP."""
        if sum(map(len, self._early)) < _EARLY_DATAGRAMS:
            self._early.append(self._raw[slots])

    def _take_symbols(self, kind: Kind, slots: Numbers) -> None:
        """Sort symbols of the running pass by window, each symbol once.

        A repetition in the same batch is taken afterwards: it is the genuine one if the first turns out to be forged.
        """
        places = self._places[slots].astype(np.int64)
        while not (places[1:] > places[:-1]).all():
            firsts = np.unique(places, return_index=True)[1]
            rest = np.ones(len(places), np.bool_)
            rest[firsts] = False
            self._take_sorted(kind, places[firsts], slots[firsts])
            if not rest.any():
                return
            places, slots = places[rest], slots[rest]
        self._take_sorted(kind, places, slots)

    def _take_sorted(self, kind: Kind, places: Numbers, slots: Numbers) -> None:
        first, last = int(places[0]) >> 32, int(places[-1]) >> 32
        take = self._take_source if kind is Kind.SOURCE else self._take_parity
        if first == last:
            take(first, places & _SYMBOL_MASK, slots)
            return
        cuts = [0, *(np.flatnonzero(np.diff(places >> 32)) + 1).tolist(), len(places)]
        for low, high in pairwise(cuts):
            take(int(places[low]) >> 32, places[low:high] & _SYMBOL_MASK, slots[low:high])

    def _take_source(self, number: int, symbols: Numbers, slots: Numbers) -> None:
        """Open fresh source symbols of one window, ascending, into their places."""
        window = self._ring.window(number) or self._admit(number, symbols, slots)
        if window is None:
            self._skip(slots)
            return
        start, stop, held = int(symbols[0]), int(symbols[-1]) + 1, window.memory.held
        if stop > window.shape.symbol_count:
            inside = symbols < window.shape.symbol_count
            self.counts.rejected_datagram_count += int(np.count_nonzero(~inside))
            if inside.any():
                self._take_source(number, symbols[inside], slots[inside])
            return
        if self._ring.suspicious and self._geometry.parity_symbols:
            # The factors of these fingerprints are known by now: who seals a symbol at this time can choose its own.
            late = window.checked[symbols] & ~held[symbols]
            symbols, slots = symbols[~late], slots[~late]
            if not len(symbols):
                return
            start, stop = int(symbols[0]), int(symbols[-1]) + 1
        contiguous = stop - start == len(symbols)
        known = held[start:stop] if contiguous else held[symbols]
        if known.any():
            self._take_rivals(window, symbols[known], slots[known])
            if known.all():
                return
            symbols, slots, contiguous = symbols[~known], slots[~known], False
        if failed := self._opener.open_symbols(slots, window.memory.source, symbols):
            genuine = ~np.isin(slots, failed)
            self.counts.rejected_datagram_count += len(failed)
            symbols, slots, contiguous = symbols[genuine], slots[genuine], False
            if not len(symbols):
                return
            stop = int(symbols[-1]) + 1
        held[slice(start, stop) if contiguous else symbols] = True
        counters = self._counters[slots]
        self._note_source(window, len(slots), stop, int(counters.min()), int(counters.max()))

    def _take_rivals(self, window: Window, symbols: Numbers, slots: Numbers) -> None:
        """Take repetitions of symbols that are held: where they differ, one of the two is forged."""
        self._skip(slots)
        rebuilt = np.isin(symbols % window.shape.codewords, list(window.decoding))
        fresh = ~rebuilt & ~window.checked[symbols] if self._ring.suspicious else ~rebuilt
        opened = SymbolMemory(self._geometry.symbol_bytes, int(np.count_nonzero(fresh)))
        failed = self._opener.open_symbols(slots[fresh], opened, np.arange(len(opened)))
        content, size = window.memory.source.content, self._geometry.symbol_bytes
        differing = False
        for slot, symbol, rival in zip(slots[fresh].tolist(), symbols[fresh].tolist(), opened.views, strict=True):
            if slot not in failed and rival != content[symbol * size : (symbol + 1) * size]:
                window.add_rival(Kind.SOURCE, symbol, rival)
                differing = True
        if differing:
            self._suspect()

    def _take_parity(self, number: int, symbols: Numbers, slots: Numbers) -> None:
        """Open the parity symbols of one window that its codewords need."""
        window = self._ring.window(number)
        if window is None or window.late:
            self._skip(slots)
            return
        codewords, rows = symbols % window.shape.codewords, symbols // window.shape.codewords
        deficits = window.deficits()
        useful = (deficits[codewords] > 0) & (rows < self._geometry.parity_symbols)
        self._skip(slots[~useful])
        if self._ring.suspicious:
            self._keep_parity(window, symbols[useful], slots[useful])
            return
        taken: list[tuple[int, int, int]] = []
        candidates = (slots[useful], codewords[useful], rows[useful])
        for slot, codeword, row in zip(*(values.tolist() for values in candidates), strict=True):
            if deficits[codeword] > 0 and row not in window.parity.get(codeword, ()):
                deficits[codeword] -= 1
                taken.append((slot, codeword, row))
        if not taken:
            return
        parity = SymbolMemory(self._geometry.symbol_bytes, len(taken))
        failed = self._opener.open_symbols(np.array([slot for slot, *_ in taken]), parity, np.arange(len(taken)))
        self.counts.rejected_datagram_count += len(failed)
        touched = set()
        for (slot, codeword, row), symbol in zip(taken, parity.views, strict=True):
            if slot in failed:
                deficits[codeword] += 1
                continue
            window.parity.setdefault(codeword, {})[row] = symbol
            window.active_at = self._now
            touched.add(codeword)
            self._count(1, int(self._counters[slot]), int(self._counters[slot]))
        for codeword in touched:
            if deficits[codeword] <= 0:
                self._ring.complete_codeword(window, codeword)

    def _keep_parity(self, window: Window, symbols: Numbers, slots: Numbers) -> None:
        """Keep parity symbols until the sender's fingerprints show which are its own."""
        opened = SymbolMemory(self._geometry.symbol_bytes, len(slots))
        failed = self._opener.open_symbols(slots, opened, np.arange(len(slots)))
        self.counts.rejected_datagram_count += len(failed)
        for slot, symbol, parity in zip(slots.tolist(), symbols.tolist(), opened.views, strict=True):
            if slot not in failed:
                window.add_rival(Kind.PARITY, symbol, parity)
                self._count(1, int(self._counters[slot]), int(self._counters[slot]))

    def _admit(self, number: int, symbols: Numbers, slots: Numbers) -> Window | None:
        """Returns a new window for a genuine symbol, or None if the window is finished, not needed or has no room."""
        if not self._ring.possible(number) or self._genuine_slot(slots) is None:
            return None
        return self._ring.admit(number, int(symbols[0]), self._now)

    def _genuine_slot(self, slots: Numbers) -> int | None:
        """Returns the last of the slots that opens, or None if none does: one is enough to believe in its train."""
        for slot in reversed(slots.tolist()):
            if not self._opener.open_symbols(np.array([slot]), self._scratch, np.zeros(1, np.int64)):
                return int(slot)
            self.counts.rejected_datagram_count += 1
        return None

    def _skip(self, slots: Numbers) -> None:
        """Count datagrams that bring nothing new: the last genuine one of a train is the proof of those before it."""
        if not len(slots):
            return
        counters = self._counters[slots].astype(np.uint64)
        newer = slots[counters > np.uint64(max(0, self.counts.highest_packet_counter))]
        proof = self._genuine_slot(newer)
        if proof is not None:
            genuine = self._counters[newer] <= self._counters[proof]
            first = int(self._counters[newer[genuine]].min())
            self._count(int(np.count_nonzero(genuine)), first, int(self._counters[proof]))

    def _count(self, datagrams: int, first: int, counter: int) -> None:
        """Count genuine datagrams with packet counters from `first` to `counter`, not all of them if some are lost."""
        if self.counts.note(datagrams, first, counter):
            self.counts.pass_number = self._ring.pass_number
