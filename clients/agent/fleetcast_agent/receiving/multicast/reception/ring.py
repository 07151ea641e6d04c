"""The windows of the running pass: which are collected, what they give out, and when their memory is free again.

Pure, like the reception that feeds it. WIRE.md, sections 6 and 7, from the receiver's side.
"""

from __future__ import annotations

import numpy as np
from fleetcast_wire.geometry import PassLayout
from fleetcast_wire.packet import Fingerprints, Kind, Mark, MarkedWindow
from numpy.typing import NDArray

from fleetcast_agent.receiving.counts import ReceptionCounts
from fleetcast_agent.receiving.multicast.reception.events import (
    ChunkArrived,
    CodewordCompleted,
    DeficitsCounted,
    Event,
    PassSettled,
)
from fleetcast_agent.receiving.multicast.reception.forgery import forged_symbols, genuine_parity
from fleetcast_agent.receiving.multicast.reception.straddling import StraddlingChunks
from fleetcast_agent.receiving.multicast.reception.windows import (
    Piece,
    Window,
    WindowMemories,
    WindowMemory,
    cut_pieces,
)

_STALE_SECONDS = 2.0
"""An incomplete window that has not grown for so long gives its memory to a new one. Rounds of repair take 0.05 s."""
_SMALL_DEFICIT = 8
"""So much is always repaired, even of a window of a few rows. WIRE.md, section 7."""
_LATE_ROWS = 2
"""A window that is first heard after so many rows began before this machine listened; less is taken for loss."""
_WINDOWS_AHEAD = 2
"""So many windows after the one that the sender has said it sends may be sent by now: what it signs can be lost."""


class WindowRing:
    """A bounded number of windows at once.

    Args:
        memories: for windows; as many are collected at once as there are.
        wanted: shape (chunk_count,): which chunks are lacking. The ring keeps this array up to date.
        has_parity: whether losses are repaired by parity, or by sending symbols again.
    """

    def __init__(
        self, memories: WindowMemories, wanted: NDArray[np.bool_], counts: ReceptionCounts, *, has_parity: bool
    ) -> None:
        self.wanted = wanted
        self.events: list[Event] = []
        """What has happened; whoever acts on it empties the list."""
        self.pass_number = 0
        """The pass that is being received; 0 before the first plan."""
        self._counts = counts
        self._has_parity = has_parity
        self._memories = memories
        self._layout: PassLayout | None = None
        self._open: dict[int, Window] = {}
        self._closing: list[Window] = []
        self._finished: set[int] = set()
        self._first_window: int | None = None
        self._straddling = StraddlingChunks(2 * memories.count + 2)
        self._ending = 0
        self._ended = False
        self.position = -1, 0
        """Window and number of the source symbol that the sender sends next, as it said last."""
        self.suspicious = False
        """Whether a member forges: nothing is believed then before the sender's fingerprints have shown it."""

    def start_pass(self, pass_number: int, layout: PassLayout) -> None:
        """Begin a pass; an earlier one is over."""
        self._close_all()
        self._ending = 0
        self._ended = False
        self.pass_number = pass_number
        self._layout = layout
        self._finished.clear()
        self._straddling.clear()
        self._first_window = None
        self.position = -1, 0

    def note_position(self, window: int, symbol: int) -> None:
        """Take from the sender which source symbol of the pass it sends next."""
        self.position = max(self.position, (window, symbol))

    def end_pass(self, pass_number: int) -> None:
        """Finish what can be finished, and take nothing more; `PassSettled` follows.

        The pass may go on without this machine, which then gets what it lacks in another way.
        """
        if pass_number >= self.pass_number:
            self._ending, self._ended = pass_number, True
            self._close_all()
            self._check_settled()

    def close(self) -> None:
        """Let go of all memory."""
        self._memories.close()
        self._open.clear()
        self._closing.clear()
        self.events.clear()

    # Windows.

    def window(self, number: int) -> Window | None:
        """Returns a window that is being collected."""
        return self._open.get(number)

    @property
    def repairing(self) -> bool:
        """Whether a window is collected beside the one that is being sent."""
        return len(self._open) > 1

    def possible(self, number: int) -> bool:
        """Returns whether the pass runs and has such a window, not finished or given up, which can be sent by now."""
        if self._layout is None or self._ended or number > self.position[0] + _WINDOWS_AHEAD:
            return False
        return number not in self._finished and 0 <= number < self._layout.window_count

    def admit(self, number: int, first_symbol: int, now: float) -> Window | None:
        """Returns a new window, or None if nothing of it is wanted or there is no room.

        `number` is possible, and proven by a genuine symbol; `first_symbol` is the first that came.
        """
        layout = self._layout
        if layout is None:
            return None
        if self._first_window is None:
            # A forged symbol of a later window must not make this machine pass over the one that the sender sends.
            self._first_window = min(number, self.position[0]) if self.position[0] >= 0 else number
        pieces = [piece for piece in cut_pieces(layout, number) if self._needs(layout, piece)]
        if not pieces or number < self._first_window:
            self._finished.add(number)
            return None
        memory = self._take_memory(now)
        if memory is None:
            self._finished.add(number)
            self._straddling.give_up_window(layout, number)
            self._counts.dropped_window_count += 1
            return None
        shape = layout.window(number)
        began = self.position[1] if self.position[0] == number else 0
        late = number == self._first_window and min(first_symbol, began) >= _LATE_ROWS * shape.codewords
        window = Window(number, layout, shape, memory, pieces, late, missing=shape.symbol_count, active_at=now)
        memory.held[:] = not self._has_parity
        if not self._has_parity:  # then only the symbols of wanted chunks count
            for piece in pieces:
                memory.held[piece.first_symbol : piece.end_symbol] = False
            window.missing = int(np.count_nonzero(~window.held))
        self._open[number] = window
        return window

    def _needs(self, layout: PassLayout, piece: Piece) -> bool:
        return bool(self.wanted[layout.chunks[piece.position]]) and self._straddling.possible(piece)

    def _take_memory(self, now: float) -> WindowMemory | None:
        memory = self._memories.take()
        if memory is None:
            stale = [w for w in self._open.values() if now - w.active_at > _STALE_SECONDS and not w.busy]
            for window in stale[:1]:
                self._counts.dropped_window_count += 1
                self._close(window)
                memory = self._memories.take()
        return memory

    def note_source(self, window: Window, count: int, stop: int, now: float) -> None:
        """Note that `count` source symbols of a window are in their places and marked held, the last before `stop`."""
        window.missing -= count
        window.active_at = now
        if self.suspicious:
            return  # what is delivered, and when, follows from the fingerprints
        if window.next_piece < len(window.pieces) and window.pieces[window.next_piece].end_symbol <= stop:
            self._look_at_pieces(window, stop)
        if not window.missing:
            self._close(window)

    # Forged symbols.

    def suspect(self) -> None:
        """Believe nothing from now on that is not proven; parity that came before is not."""
        self.suspicious = True
        for window in self._open.values():
            window.parity.clear()
            window.reported_round = 0  # what it lacks is more than it said

    def awaits(self, proof: Fingerprints) -> bool:
        """Returns whether anything would follow from fingerprints, if they are the sender's."""
        window = self._open.get(proof.window) or self._doubted(proof.window)
        if window is None:
            return False
        if proof.kind is Kind.PARITY:
            return any((Kind.PARITY, symbol) in window.rivals for symbol in proof.symbols.tolist())
        symbols = proof.symbols[proof.symbols < window.shape.symbol_count]
        return not window.checked[symbols].all()

    def doubt(self, arrived: ChunkArrived) -> None:
        """Note that a chunk did not match its digest: once it is known which of its symbols are forged, it can come."""
        window = arrived.window
        if window is not None and window.layout is self._layout:
            window.doubted += [it for it in window.pieces if self._layout.chunks[it.position] == arrived.chunk]

    def prove(self, proof: Fingerprints) -> None:
        """Take fingerprints that the sender signed, where something was forged."""
        window = self._open.get(proof.window) or self._doubted(proof.window)
        if window is None:
            return
        if proof.kind is Kind.PARITY:
            self._take_parity(window, proof)
            return
        forged = forged_symbols(window, proof)
        if len(forged):
            window.held[forged] = False
            window.missing += len(forged)
            self._counts.forged_datagram_count += len(forged)
            self._counts.rejected_datagram_count += len(forged)
            window.reported_round = 0
            self._take_back(window)
        if not window.closed:
            self._look_at_pieces(window, int(proof.symbols[-1]) + 1)
            if not window.missing and window.checked.all():
                self._close(window)

    def _doubted(self, number: int) -> Window | None:
        """Returns a window that was taken for whole, and of which a chunk did not match its digest."""
        if self._ended:
            return None
        doubted = (it for it in self._closing if it.number == number and it.doubted and it.layout is self._layout)
        return next(doubted, None)

    def _take_back(self, window: Window) -> None:
        """Collect what is missing again of chunks that were taken for whole."""
        lacking = [it for it in window.doubted if not window.held[it.first_symbol : it.end_symbol].all()]
        window.doubted = [it for it in window.doubted if it not in lacking]
        window.left += lacking
        if window.closed and lacking:
            window.closed = False
            self._finished.discard(window.number)
            self._closing.remove(window)
            self._open[window.number] = window

    def _take_parity(self, window: Window, proof: Fingerprints) -> None:
        deficits = window.deficits()
        for symbol, parity in genuine_parity(window, proof):
            row, codeword = divmod(symbol, window.shape.codewords)
            rows = window.parity.setdefault(codeword, {})
            if deficits[codeword] > 0 and row not in rows:  # who replays parity makes no second row of it
                rows[row] = parity
                deficits[codeword] -= 1
                if not deficits[codeword]:
                    self.complete_codeword(window, codeword)

    def complete_codeword(self, window: Window, codeword: int) -> None:
        """Have a codeword rebuilt that has as many symbols as it needs."""
        column = window.held[codeword :: window.shape.codewords]
        lost_rows = np.flatnonzero(~column).tolist()
        parity = window.parity.pop(codeword)
        if not lost_rows:
            return
        column[:] = True  # nothing is opened into places that the decoder writes
        window.decoding.add(codeword)
        window.rebuilt = True
        self.events.append(CodewordCompleted(window, codeword, lost_rows, parity))

    def take_mark(self, mark: Mark) -> None:
        """Report each round once; give up what the sender repairs no more."""
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
        if self._has_parity:
            deficits = np.maximum(window.deficits(), 0)
            hopeless = deficits.max() > max(window.shape.rows // 4, _SMALL_DEFICIT)
        else:
            deficits = (~window.held).astype(np.int32)
            hopeless = deficits.sum() > max(window.shape.symbol_count // 4, _SMALL_DEFICIT)
        if hopeless:
            self._close(window)  # the sender would not repair this window: it comes again in the next pass
        elif self.suspicious and not window.missing:
            self._close(window)  # the fingerprints that have not come by now are lost
        elif deficits.any():
            self.events.append(DeficitsCounted(self.pass_number, window.number, entry.round, deficits))

    # What windows give out.

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
            self._counts.recovered_symbol_count += len(completed.lost_rows)
        else:
            window.held[completed.codeword :: window.shape.codewords][completed.lost_rows] = False
        whole = not window.missing and (not self.suspicious or bool(window.checked.all()))
        if window.closed or not rebuilt or whole:
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
        stored = window.memory.source.content[piece.start : piece.end]
        if piece.whole:
            window.references += 1
            self.wanted[chunk] = False
            self.events.append(ChunkArrived(chunk, stored, window))
            return
        joined = None
        if window.layout is self._layout:  # else it is of an earlier pass, and its neighbours are gone
            joined = self._straddling.add(window.layout, window.number, piece, stored)
        if joined is not None:
            self.wanted[chunk] = False
            self.events.append(ChunkArrived(chunk, joined, None))

    # The end of windows.

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
            self._memories.give_back(window.memory)

    def _check_settled(self) -> None:
        if self._ending and not any(window.decoding for window in self._closing):
            self.events.append(PassSettled(self._ending))
            self._ending = 0
