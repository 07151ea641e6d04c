"""What one machine makes of the datagrams of one transmission. WIRE.md, sections 4 to 7, from the receiver's side.

Pure: datagrams lie in the slots of an `Opener`, `now` is an argument, and what follows comes out as events. One thread
at a time; nothing here blocks. Genuine symbols are opened straight into their place in a window, by the train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from fleetcast_wire.errors import PacketError
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.packet import VERSION, Kind, Mark, MarkedWindow, unpack_header, unpack_mark
from fleetcast_wire.seal import Opener
from numpy.typing import NDArray

from fleetcast_agent.straddling import StraddlingChunks
from fleetcast_agent.windows import Piece, Window, WindowMemory, cut_pieces

_STALE_SECONDS = 2.0
"""An incomplete window that has not grown for so long gives its memory to a new one. Rounds of repair take 0.05 s."""
_EARLY_DATAGRAMS = 8192
"""12 MB, or 0.1 s at 1 Gbit/s."""
_SMALL_DEFICIT = 8
"""So much is always repaired, even of a window of a few rows. WIRE.md, section 7."""
_PREFIX_OF_TRANSMISSION = 0xFF00_0000_FFFF_FFFF
"""Of the first 8 bytes of a datagram: version and tag, without kind and pass."""
_SYMBOL_MASK = 0xFFFF_FFFF

Slots = NDArray[np.int64] | range


@dataclass(frozen=True, eq=False)
class ChunkArrived:
    """All stored bytes of a chunk are there, unproven. Answer with `Reception.settle_chunk`."""

    chunk: int
    stored: memoryview
    """Valid until settled."""
    window: Window | None
    """Whose memory `stored` lies in; None if it has its own."""


@dataclass(frozen=True, eq=False)
class CodewordCompleted:
    """A codeword can be rebuilt from its parity. Answer with `Reception.settle_codeword`."""

    window: Window
    codeword: int
    lost_rows: list[int]
    """Rows of the source symbols to rebuild, into `window.memory`."""
    parity: dict[int, bytearray]
    """Parity symbols by row."""


@dataclass(frozen=True, eq=False)
class DeficitsCounted:
    """A round ended and a window lacks something."""

    pass_number: int
    window: int
    round: int
    deficits: NDArray[np.int32]
    """Shape (codewords,), or without parity (symbols,): see WIRE.md, section 7."""


@dataclass(frozen=True)
class PassSettled:
    """A pass ended, and everything that could be rebuilt of it is."""

    pass_number: int


Event = ChunkArrived | CodewordCompleted | DeficitsCounted | PassSettled


@dataclass
class ReceptionCounts:
    """Totals of one transmission."""

    datagram_count: int = 0
    """Datagrams that authenticated."""
    rejected_datagram_count: int = 0
    """Datagrams that are not of this transmission, or do not open."""
    first_packet_counter: int = -1
    highest_packet_counter: int = -1
    """Of those that authenticated; -1 if none did."""
    pass_number: int = 0
    """Pass of the highest packet counter."""
    dropped_window_count: int = 0
    """Windows given up because the ring was full."""
    recovered_symbol_count: int = 0

    @property
    def absent_datagram_count(self) -> int:
        """Datagrams sent since the first that was heard, and not heard: lost on the way or in this host."""
        if self.highest_packet_counter < 0:
            return 0
        return max(0, self.highest_packet_counter - self.first_packet_counter + 1 - self.datagram_count)


class Reception:
    """Collects the wanted chunks of a transmission from its datagrams.

    Args:
        opener: holds the keys and the slots that datagrams are received into.
        geometry: the transmission's numbers.
        ring: the memory for windows; as many windows are collected at once.
        wanted: shape (chunk_count,): which chunks are lacking. The reception keeps this array up to date.
    """

    def __init__(
        self, opener: Opener, geometry: Geometry, ring: Sequence[WindowMemory], wanted: NDArray[np.bool_], tag: int
    ) -> None:
        self.counts = ReceptionCounts()
        self.wanted = wanted
        self.pass_number = 0
        """The pass that is being received; 0 before the first plan."""
        self._opener = opener
        self._geometry = geometry
        self._free = list(ring)
        raw = self._raw = np.frombuffer(opener.buffer, np.uint8).reshape(-1, opener.stride)
        self._prefixes = raw[:, :8].view(">u8")[:, 0]
        self._places = raw[:, 8:16].view(">u8")[:, 0]
        self._early: list[NDArray[np.uint8]] = []
        self._counters = opener.headers["counter"]
        self._transmission_prefix = VERSION << 56 | tag
        self._scratch = memoryview(bytearray(geometry.symbol_bytes))
        self._events: list[Event] = []
        self._layout: PassLayout | None = None
        self._open: dict[int, Window] = {}
        self._closing: list[Window] = []
        self._finished: set[int] = set()
        self._first_window: int | None = None
        self._straddling = StraddlingChunks(2 * len(ring) + 2)
        self._mark_counter = -1
        self._ending = 0
        self._source_prefix = np.uint64(0)
        self._now = 0.0

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    # What the sender says over its stream.

    def start_pass(self, pass_number: int, layout: PassLayout) -> None:
        """Begin a pass; an earlier one is over. A plan that was given before is ignored."""
        if pass_number <= self.pass_number:
            return
        self._close_all()
        self._ending = 0
        self.pass_number = pass_number
        self._layout = layout
        self._finished.clear()
        self._straddling.clear()
        self._first_window = None
        self._source_prefix = np.uint64(self._transmission_prefix | Kind.SOURCE << 48 | pass_number << 32)
        early, self._early = self._early, []
        for datagrams in early:
            self._raw[: len(datagrams)] = datagrams
            self.receive(0, len(datagrams), self._now)

    def end_pass(self, pass_number: int) -> None:
        """Finish what can be finished; `PassSettled` follows."""
        if pass_number < self.pass_number:
            return
        self._ending = pass_number
        self._close_all()
        self._check_settled()

    # Datagrams.

    def receive(self, first: int, end: int, now: float) -> None:
        """Take the datagrams of the size of a sealed symbol in the opener's slots `first` to `end` - 1."""
        self._now = now
        prefixes = self._prefixes[first:end]
        if self._layout is not None and (prefixes == self._source_prefix).all():
            self._take_symbols(Kind.SOURCE, range(first, end))
            return
        values = prefixes.astype(np.uint64)
        ours = (values & np.uint64(_PREFIX_OF_TRANSMISSION)) == np.uint64(self._transmission_prefix)
        self.counts.rejected_datagram_count += int(np.count_nonzero(~ours))
        for value in np.unique(values[ours]).tolist():
            kind, pass_number = value >> 48 & 0xFF, value >> 32 & 0xFFFF
            slots = np.flatnonzero(values == np.uint64(value)) + first
            if kind == Kind.MARK:
                for slot in slots.tolist():
                    stride = self._opener.stride
                    self.receive_other(bytes(self._opener.buffer[slot * stride : (slot + 1) * stride]), now)
            elif kind not in (Kind.SOURCE, Kind.PARITY):
                self.counts.rejected_datagram_count += len(slots)
            elif pass_number > self.pass_number:
                self._keep(slots)
            elif pass_number != self.pass_number:
                self._skip(slots)
            else:
                self._take_symbols(Kind(kind), slots)

    def receive_other(self, datagram: bytes, now: float) -> None:
        """Take a datagram of any other size: a mark, or nothing of ours."""
        self._now = now
        try:
            header = unpack_header(datagram)
            if header.tag != self._transmission_prefix & _SYMBOL_MASK or header.kind is not Kind.MARK:
                raise PacketError("neither a symbol nor a mark of this transmission")
            if header.counter <= self._mark_counter:
                return  # a repetition, or late: newer marks say more
            mark = unpack_mark(self._opener.open(datagram))
        except PacketError:
            self.counts.rejected_datagram_count += 1
            return
        self._mark_counter = header.counter
        self._count(1, header.counter)
        if header.pass_number == self.pass_number and self._layout is not None:
            self._take_mark(mark)

    def _keep(self, slots: NDArray[np.int64]) -> None:
        """Keep symbols that overtook the plan of their pass: it comes over TCP."""
        if sum(map(len, self._early)) < _EARLY_DATAGRAMS:
            self._early.append(self._raw[slots])

    def _take_symbols(self, kind: Kind, slots: Slots) -> None:
        """Sort symbols of the running pass by window."""
        places = (self._places[slots.start : slots.stop] if isinstance(slots, range) else self._places[slots]).astype(
            np.int64
        )
        if not (places[1:] > places[:-1]).all():
            places, kept = np.unique(places, return_index=True)
            slots = _array(slots)[kept]
        first, last = int(places[0]) >> 32, int(places[-1]) >> 32
        take = self._take_source if kind is Kind.SOURCE else self._take_parity
        if first == last:
            take(first, places & _SYMBOL_MASK, slots)
            return
        cuts = [0, *(np.flatnonzero(np.diff(places >> 32)) + 1).tolist(), len(places)]
        for low, high in pairwise(cuts):
            take(int(places[low]) >> 32, places[low:high] & _SYMBOL_MASK, slots[low:high])

    def _take_source(self, number: int, symbols: NDArray[np.int64], slots: Slots) -> None:
        """Open fresh source symbols of one window, ascending, into their places."""
        window = self._open.get(number) or self._admit(number, symbols, slots)
        if window is None:
            self._skip(slots)
            return
        start, stop, held = int(symbols[0]), int(symbols[-1]) + 1, window.memory.held
        if stop > window.shape.symbol_count:
            inside = symbols < window.shape.symbol_count
            self.counts.rejected_datagram_count += int(np.count_nonzero(~inside))
            if inside.any():
                self._take_source(number, symbols[inside], _array(slots)[inside])
            return
        contiguous = stop - start == len(symbols)
        known = held[start:stop] if contiguous else held[symbols]
        if known.any():
            self._skip(_array(slots)[known])
            if known.all():
                return
            symbols, slots, contiguous = symbols[~known], _array(slots)[~known], False
        views = window.memory.symbols
        places = views[start:stop] if contiguous else list(map(views.__getitem__, symbols.tolist()))
        if isinstance(slots, range):
            failed = self._opener.open_symbols(slots.start, places)
        else:
            failed = self._opener.open_scattered(slots.tolist(), places)
        if failed:
            genuine = ~np.isin(_array(slots), failed)
            self.counts.rejected_datagram_count += len(failed)
            symbols, slots, contiguous = symbols[genuine], _array(slots)[genuine], False
            if not len(symbols):
                return
        held[slice(start, stop) if contiguous else symbols] = True
        window.missing -= len(symbols)
        window.active_at = self._now
        self._count(len(symbols), int(self._counters[int(slots[-1])]))
        pieces = window.pieces
        if window.next_piece < len(pieces) and pieces[window.next_piece].end_symbol <= stop:
            self._look_at_pieces(window, stop)
        if not window.missing:
            self._close(window)

    def _take_parity(self, number: int, symbols: NDArray[np.int64], slots: Slots) -> None:
        """Open the parity symbols of one window that its codewords need."""
        window = self._open.get(number)
        if window is None or window.late:
            self._skip(slots)
            return
        codewords, rows = symbols % window.shape.codewords, symbols // window.shape.codewords
        deficits = window.deficits()
        useful = (deficits[codewords] > 0) & (rows < self._geometry.parity_symbols)
        self._skip(_array(slots)[~useful])
        taken: list[tuple[int, int, int, bytearray]] = []
        candidates = (_array(slots)[useful], codewords[useful], rows[useful])
        for slot, codeword, row in zip(*(values.tolist() for values in candidates), strict=True):
            if deficits[codeword] > 0 and row not in window.parity.get(codeword, ()):
                deficits[codeword] -= 1
                taken.append((slot, codeword, row, bytearray(self._geometry.symbol_bytes)))
        if not taken:
            return
        failed = self._opener.open_scattered([slot for slot, *_ in taken], [symbol for *_, symbol in taken])
        self.counts.rejected_datagram_count += len(failed)
        touched = set()
        for slot, codeword, row, symbol in taken:
            if slot in failed:
                deficits[codeword] += 1
                continue
            window.parity.setdefault(codeword, {})[row] = symbol
            window.active_at = self._now
            touched.add(codeword)
            self._count(1, int(self._counters[slot]))
        for codeword in touched:
            if deficits[codeword] <= 0:
                self._request_decoding(window, codeword)

    def _request_decoding(self, window: Window, codeword: int) -> None:
        column = window.held[codeword :: window.shape.codewords]
        lost_rows = np.flatnonzero(~column).tolist()
        parity = window.parity.pop(codeword)
        if not lost_rows:
            return
        column[:] = True  # nothing is opened into places that the decoder writes
        window.decoding.add(codeword)
        window.rebuilt = True
        self._events.append(CodewordCompleted(window, codeword, lost_rows, parity))

    def _admit(self, number: int, symbols: NDArray[np.int64], slots: Slots) -> Window | None:
        """Return a new window for a genuine symbol, or None if the window is finished, not needed or has no room."""
        layout = self._layout
        if layout is None or number in self._finished or not 0 <= number < layout.window_count:
            return None
        if not self._prove(slots):
            return None
        pieces = [piece for piece in cut_pieces(layout, number) if self._needs(layout, piece)]
        if self._first_window is None:
            self._first_window = number
        if not pieces or number < self._first_window:
            self._finished.add(number)
            return None
        shape = layout.window(number)
        memory = self._take_memory()
        if memory is None:
            self._finished.add(number)
            self._straddling.give_up_window(layout, number)
            self.counts.dropped_window_count += 1
            return None
        # WIRE.md, section 9, 2: losing its first two rows is taken for loss, more for having come late.
        late = number == self._first_window and int(symbols[0]) >= 2 * shape.codewords
        window = Window(number, layout, shape, memory, pieces, late, missing=shape.symbol_count, active_at=self._now)
        memory.held[:] = False
        if not self._geometry.parity_symbols:
            memory.held[:] = True  # without parity, only the symbols of wanted chunks count
            for piece in pieces:
                memory.held[piece.first_symbol : piece.end_symbol] = False
            window.missing = int(np.count_nonzero(~window.held))
        self._open[number] = window
        return window

    def _needs(self, layout: PassLayout, piece: Piece) -> bool:
        return bool(self.wanted[layout.chunks[piece.position]]) and self._straddling.possible(piece)

    def _take_memory(self) -> WindowMemory | None:
        if not self._free:
            stale = [w for w in self._open.values() if self._now - w.active_at > _STALE_SECONDS and not w.busy]
            for window in stale[:1]:
                self.counts.dropped_window_count += 1
                self._close(window)
        return self._free.pop() if self._free else None

    def _prove(self, slots: Slots) -> bool:
        """Return whether one of the slots is genuine; one is enough to believe in its train."""
        for slot in reversed(slots if isinstance(slots, range) else slots.tolist()):
            if not self._opener.open_scattered([slot], [self._scratch]):
                return True
        return False

    def _skip(self, slots: Slots) -> None:
        """Count datagrams that bring nothing new: the last of a train is opened as the proof of all."""
        if not len(slots):
            return
        counters = self._counters[_array(slots)].astype(np.uint64)
        newer = _array(slots)[counters > np.uint64(max(0, self.counts.highest_packet_counter))]
        if not len(newer):
            return
        proof = int(newer[-1])
        if self._opener.open_scattered([proof], [self._scratch]):
            self.counts.rejected_datagram_count += 1
        else:
            self._count(len(newer), int(self._counters[proof]))

    def _count(self, datagrams: int, counter: int) -> None:
        counts = self.counts
        counts.datagram_count += datagrams
        if counter > counts.highest_packet_counter:
            counts.highest_packet_counter = counter
            counts.pass_number = self.pass_number
            if counts.first_packet_counter < 0:
                counts.first_packet_counter = max(0, counter - datagrams + 1)

    # Marks.

    def _take_mark(self, mark: Mark) -> None:
        """WIRE.md, section 7: report each round once; give up what the sender repairs no more."""
        marked = {entry.window: entry for entry in mark.windows}
        newest = max(marked, default=-1)
        for window in list(self._open.values()):
            entry = marked.get(window.number)
            if entry is None:
                if newest > window.number:
                    self._close(window)
            elif window.late:
                self._close(window)
            elif entry.round > window.reported_round:
                self._report(window, entry)

    def _report(self, window: Window, entry: MarkedWindow) -> None:
        window.reported_round = entry.round
        if self._geometry.parity_symbols:
            deficits = np.maximum(window.deficits(), 0)
            hopeless = deficits.max() > max(window.shape.rows // 4, _SMALL_DEFICIT)
        else:
            deficits = (~window.held).astype(np.int32)
            hopeless = deficits.sum() > max(window.shape.symbol_count // 4, _SMALL_DEFICIT)
        if hopeless:
            self._close(window)  # the sender would not repair this window: it comes again in the next pass
        elif deficits.any():
            self._events.append(DeficitsCounted(self.pass_number, window.number, entry.round, deficits))

    # The end of windows and of what they gave out.

    def settle_chunk(self, arrived: ChunkArrived, proven: bool) -> None:
        """Take back the memory of a chunk that was written, or did not match its digest (then it is wanted again)."""
        if not proven:
            self.wanted[arrived.chunk] = True
        if arrived.window is not None:
            arrived.window.references -= 1
            self._release(arrived.window)

    def settle_codeword(self, completed: CodewordCompleted, rebuilt: bool) -> None:
        """Take the symbols of a codeword, now in their places; if it was not rebuilt, its window is given up."""
        window = completed.window
        window.decoding.discard(completed.codeword)
        if rebuilt:
            window.missing -= len(completed.lost_rows)
            self.counts.recovered_symbol_count += len(completed.lost_rows)
        else:
            window.held[completed.codeword :: window.shape.codewords][completed.lost_rows] = False
        if window.closed or not rebuilt or not window.missing:
            self._close(window)
        self._check_settled()

    def _look_at_pieces(self, window: Window, stop: int) -> None:
        """Deliver the pieces up to the symbol `stop` that are whole."""
        while window.next_piece < len(window.pieces):
            piece = window.pieces[window.next_piece]
            if piece.end_symbol > stop:
                break
            window.next_piece += 1
            if not window.rebuilt and window.held[piece.first_symbol : piece.end_symbol].all():
                self._deliver(window, piece)
            else:
                window.left.append(piece)

    def _deliver(self, window: Window, piece: Piece) -> None:
        chunk = int(window.layout.chunks[piece.position])
        if not self.wanted[chunk]:
            return
        stored = window.memory.content[piece.start : piece.end]
        if piece.whole:
            window.references += 1
            self.wanted[chunk] = False
            self._events.append(ChunkArrived(chunk, stored, window))
            return
        joined = None
        if window.layout is self._layout:  # else it is of an earlier pass, and its neighbours are gone
            joined = self._straddling.add(window.layout, window.number, piece, stored)
        if joined is not None:
            self.wanted[chunk] = False
            self._events.append(ChunkArrived(chunk, joined, None))

    def _close(self, window: Window) -> None:
        """Take no more symbols; deliver what is whole once no codeword is being rebuilt; then free the memory."""
        if not window.closed:
            window.closed = True
            window.parity.clear()
            self._finished.add(window.number)
            self._open.pop(window.number, None)
            self._closing.append(window)
        if window.decoding:
            return
        rest = [*window.left, *window.pieces[window.next_piece :]]
        window.left, window.next_piece = [], len(window.pieces)
        for piece in rest:
            if not window.missing or window.held[piece.first_symbol : piece.end_symbol].all():
                self._deliver(window, piece)
            elif not piece.whole and window.layout is self._layout:
                self._straddling.give_up(piece.position)
        self._release(window)

    def _close_all(self) -> None:
        for window in list(self._open.values()):
            self._close(window)

    def _release(self, window: Window) -> None:
        if window.closed and not window.busy and window in self._closing:
            self._closing.remove(window)
            self._free.append(window.memory)

    def _check_settled(self) -> None:
        if self._ending and not any(window.decoding for window in self._closing):
            self._events.append(PassSettled(self._ending))
            self._ending = 0


def _array(slots: Slots) -> NDArray[np.int64]:
    return np.arange(slots.start, slots.stop) if isinstance(slots, range) else slots
