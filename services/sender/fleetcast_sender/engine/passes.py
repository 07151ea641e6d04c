"""One pass: its windows in order, their repair, its marks. Pure: `now` comes in, trains of symbols go out."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from fleetcast_wire.geometry import PassLayout
from fleetcast_wire.packet import MAX_MARKED_WINDOWS, Kind, Mark
from fleetcast_wire.runs import unpack_runs
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import Deficits
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.repair import ParityPrediction, WindowRepair

_WINDOWS_AHEAD = 2
"""Windows that are loaded or being loaded beside the one that is sent: more would only take memory and time from it."""


@dataclass(frozen=True, slots=True)
class Train:
    """Symbols of one window to be sent one after the other."""

    kind: Kind
    pass_number: int
    window: int
    symbols: NDArray[np.int64]
    """Their numbers; consecutive ones if `consecutive`."""
    consecutive: bool


@dataclass(frozen=True, slots=True)
class SendMark:
    """A mark to be sent."""

    pass_number: int
    mark: Mark


class Work(Enum):
    """What a pass needs done beside sending."""

    LOAD = "load"
    """Fetch the window's source symbols, and call `loaded` as they come."""
    ENCODE = "encode"
    """Make the window's parity, then call `encoded`."""
    RELEASE = "release"
    """Nothing of the window is needed any more."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """Work on one window; `layout` says where its bytes are."""

    work: Work
    pass_number: int
    window: int


class Pass:
    """One pass from its first symbol to its last repair.

    Args:
        number: from 1.
        layout: what it sends.
        policy: times and shares.
        prediction: shared by the passes of a transmission.
        slots: how many windows may be in memory at once, at least 3.
        needed: returns whether somebody lacks one of these chunks (positions in `layout.chunks`).
    """

    def __init__(
        self,
        number: int,
        layout: PassLayout,
        policy: TransmissionPolicy,
        *,
        prediction: ParityPrediction,
        slots: int,
        needed: Callable[[range], bool],
    ) -> None:
        self.number = number
        self.layout = layout
        self.members = 1
        """Receivers of this pass, as many as there are now."""
        self.feedback_seconds = 0.0
        """How much later than usual reports come, because receivers lag."""
        self.work: deque[WorkItem] = deque()
        """What is to be done, in order; the caller takes it off."""
        self.source_symbol_count = 0
        self.repair_symbol_count = 0
        self.report_count = 0
        self._policy = policy
        self._prediction = prediction
        self._slots = max(slots, 3)
        self._needed = needed
        self._has_parity = bool(layout.geometry.parity_symbols)
        self._next_load = 0
        self._loaded: dict[int, int] = {}
        self._encoding: set[int] = set()
        self._encoded: set[int] = set()
        self._in_memory: set[int] = set()
        self._current: int | None = None
        self._symbols = np.arange(layout.geometry.window_symbols)
        self._position = 0
        self._current_symbols = 0
        self._open: dict[int, WindowRepair] = {}
        self._credit = 0.0
        self._mark_at = 0.0
        self._broke_off_at: int | None = None
        self._load()

    @property
    def finished(self) -> bool:
        """Whether nothing more will be sent."""
        return not self._open and self._current is None and self._next_load >= self.layout.window_count

    @property
    def next_chunk(self) -> int:
        """The chunk of the image that comes next; after the pass the one behind its last."""
        if self._broke_off_at is not None:
            return self._broke_off_at
        if self._current is None:
            return int(self.layout.chunks[-1]) + 1
        return int(self.layout.chunks[self.layout.window_chunks(self._current).start])

    def postpone(self, seconds: float) -> None:
        """Keep windows open for longer by a time in which the sender stood still: no report could come in."""
        for repair in self._open.values():
            repair.changed_at += seconds

    def abandon(self) -> None:
        """Send nothing more, as when nobody needs anything."""
        self._broke_off_at = self.next_chunk
        self._next_load = self.layout.window_count
        self._current = None
        self._open.clear()
        for window in sorted(self._in_memory):
            self._release(window)

    def loaded(self, window: int, symbol_count: int | None = None) -> None:
        """Note that the first `symbol_count` source symbols of a window are in memory, or all."""
        if window in self._in_memory:
            every = self.layout.window(window).symbol_count
            self._loaded[window] = every if symbol_count is None else symbol_count
            if self._loaded[window] == every and self._prediction.rows:
                self._encode(window)

    def encoded(self, window: int) -> None:
        """Note that the parity of a window is in memory."""
        if window in self._in_memory:
            self._encoded.add(window)

    def deficits(self, report: Deficits, now: float) -> None:
        """Take a report. One on a window that is not open is late, and ignored.

        Raises:
            RunsError: the report does not fit the window.
        """
        repair = self._open.get(report.window)
        if repair is None or report.pass_number != self.number:
            return
        numbers = unpack_runs(report.run_values, report.run_lengths, repair.unit_count)
        self.report_count += 1
        if repair.report(report.round, numbers, now, self._policy.gather_seconds):
            repair.gather_until = now

    def next(self, now: float, limit: int) -> Train | SendMark | None:
        """Returns what to send next, at most `limit` symbols; None when nothing is to be sent before `wake_at`."""
        self._settle(now)
        if self._open and now >= self._mark_at:
            return self._mark(now)
        repair = self._sendable_repair()
        if repair and (self._credit >= 0 or not self._source_ready()):
            return self._send_repair(repair, limit)
        if self._source_ready():
            return self._send_source(now, limit)
        return None

    def wake_at(self, now: float) -> float:
        """Returns when `next` may have something again if no input comes before."""
        if self._source_ready() or self._sendable_repair():
            return now
        times = [self._mark_at] if self._open else []
        # Of those that wait for their parity nothing is due: it comes as an input.
        waiting = (repair for repair in self._open.values() if repair.between_rounds)
        times += [self._closes_at(r) if r.gather_until is None else r.gather_until for r in waiting]
        return max(now, min(times, default=now + 1))

    def ended_mark(self) -> Mark:
        """Returns the mark that says that the pass has ended."""
        return Mark((), self.layout.window_count, ended=True)

    # Source

    def _load(self) -> None:
        while self._next_load < self.layout.window_count and self._has_room():
            window = self._next_load
            self._next_load += 1
            if not self._needed(self.layout.window_chunks(window)):
                continue
            if self._current is None:
                self._current = window
                self._position = 0
                self._current_symbols = self.layout.window(window).symbol_count
            self._in_memory.add(window)
            self.work.append(WorkItem(Work.LOAD, self.number, window))

    def _has_room(self) -> bool:
        ahead = len(self._in_memory) - len(self._open) - (self._current is not None)
        return len(self._in_memory) < self._slots and ahead < _WINDOWS_AHEAD

    def _source_ready(self) -> bool:
        return self._current is not None and self._loaded.get(self._current, 0) > self._position

    def _send_source(self, now: float, limit: int) -> Train:
        window = self._current
        assert window is not None  # noqa: S101 - _source_ready said so
        symbols = self._symbols[self._position : min(self._position + limit, self._loaded[window])]
        count = len(symbols)
        self._position += count
        self.source_symbol_count += count
        # Repair may take `repair_share` of all that is sent: each source symbol earns share / (1 - share) of a repair
        # symbol. What is not used is kept up to one window's worth of predicted parity, not more.
        earned = count * self._policy.repair_share / (1 - self._policy.repair_share)
        self._credit = min(self._credit + earned, self.layout.geometry.window_codewords)
        if self._position == self._current_symbols:
            self._open_window(window, now)
            self._advance()
        return Train(Kind.SOURCE, self.number, window, symbols, True)

    def _open_window(self, window: int, now: float) -> None:
        shape = self.layout.window(window)
        rows = min(self._prediction.rows, shape.rows // 4)
        repair = WindowRepair(window, shape, self.layout.geometry, predicted=rows, members=self.members, opened_at=now)
        self._open[window] = repair
        if repair.between_rounds:
            self._complete(repair, now)
        else:
            self._encode(window)

    def _advance(self) -> None:
        following = sorted(window for window in self._in_memory if window > (self._current or 0))
        self._current = None
        while following:
            window = following.pop(0)
            if self._needed(self.layout.window_chunks(window)):
                self._current, self._position = window, 0
                self._current_symbols = self.layout.window(window).symbol_count
                break
            self._release(window)
        self._load()

    # Repair

    def _sendable_repair(self) -> WindowRepair | None:
        for repair in self._open.values():
            if not repair.between_rounds and (not self._has_parity or repair.window in self._encoded):
                return repair
        return None

    def _send_repair(self, repair: WindowRepair, limit: int) -> Train:
        symbols = repair.take(limit)
        self._credit -= len(symbols)
        self.repair_symbol_count += len(symbols)
        if repair.between_rounds:
            repair.round_sent = True
        kind = Kind.PARITY if self._has_parity else Kind.SOURCE
        return Train(kind, self.number, repair.window, symbols, False)

    def _encode(self, window: int) -> None:
        if self._has_parity and window not in self._encoding:
            self._encoding.add(window)
            self.work.append(WorkItem(Work.ENCODE, self.number, window))

    def _complete(self, repair: WindowRepair, now: float) -> None:
        repair.round_sent = False
        repair.complete_round(now)
        self._mark_at = now

    def _settle(self, now: float) -> None:
        """Complete rounds whose symbols are sent, answer gathered reports, close windows that nobody asks for."""
        for repair in list(self._open.values()):
            if repair.round_sent:
                self._complete(repair, now)
            if not repair.between_rounds:
                continue
            if repair.gather_until is not None:
                if now >= repair.gather_until:
                    self._learn(repair)
                    if repair.answer():
                        self._encode(repair.window)
            elif now >= self._closes_at(repair):
                self._close(repair)

    def _closes_at(self, repair: WindowRepair) -> float:
        hold = self._policy.hold_seconds
        # With every slot taken and the source at a stop, the oldest window goes as soon as its reports could be here.
        if self._current is None and self._next_load < self.layout.window_count:
            hold = self._policy.gather_seconds
        return repair.changed_at + hold + self.feedback_seconds

    def _learn(self, repair: WindowRepair) -> None:
        if repair.round == 1 and not repair.learnt:
            repair.learnt = True
            self._prediction.learn(repair.predicted, repair.regular_peaks(), self.members)

    def _close(self, repair: WindowRepair) -> None:
        self._learn(repair)
        del self._open[repair.window]
        self._release(repair.window)
        self._load()

    def _release(self, window: int) -> None:
        self._in_memory.discard(window)
        self._loaded.pop(window, None)
        self._encoded.discard(window)
        self._encoding.discard(window)
        self.work.append(WorkItem(Work.RELEASE, self.number, window))

    def _mark(self, now: float) -> SendMark:
        self._mark_at = now + self._policy.mark_interval_seconds
        # A window between its source and its first round is named too: one that is not named is given up.
        windows = [repair.marked for repair in self._open.values()]
        return SendMark(self.number, Mark(tuple(windows[:MAX_MARKED_WINDOWS]), self.layout.window_count))
