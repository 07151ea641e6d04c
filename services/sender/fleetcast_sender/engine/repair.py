"""Repair of windows: what was sent of their parity, what is still wanted, and how much to send unasked.

WIRE.md, section 7. Rows are counted per codeword and cumulatively from the start of the pass: a report that round r
left a deficit of d is met when `rows after round r + d` rows were sent, however late the report comes.
"""

from statistics import NormalDist

import numpy as np
from fleetcast_wire.geometry import Geometry, WindowShape
from fleetcast_wire.packet import MarkedWindow
from numpy.typing import NDArray

REPORTERS_WANTED = 20
"""A window may have about so many reports: enough to know the maximum, too few to be a load ."""
_FEW_REPORTERS = 5
_LEVELS = (8, 16, 32, 64, 128, 1 << 30)
"""Reports are gathered by their largest deficit, up to each of these rows."""
_EXCEPTIONS = 100
"""One receiver in so many may be left to the next pass for lacking far more than the others; in small groups, none."""


class WindowRepair:
    """One window from the end of its source symbols to its closing.

    Args:
        geometry: the transmission's numbers; with P = 0 the unit is the source symbol itself, sent once more.
        predicted: parity rows sent unasked.
        members: receivers that may report.
        opened_at: when the source symbols were sent.
    """

    def __init__(
        self, window: int, shape: WindowShape, geometry: Geometry, *, predicted: int, members: int, opened_at: float
    ) -> None:
        self.window = window
        self.shape = shape
        self.predicted = predicted
        self.changed_at = opened_at
        """When the last round was completed, or the window was opened."""
        self.gather_until: float | None = None
        """When to answer the reports of this round; None while there is none."""
        self.round = 0
        """Rounds completed."""
        self.report_count = 0
        self.first_peaks: list[int] = []
        """Largest deficit of every report on round 1."""
        self._members = members
        self._parity = geometry.parity_symbols
        units = shape.codewords if self._parity else shape.symbol_count
        limit = geometry.parity_symbols if self._parity else np.iinfo(np.int32).max
        self._limit = limit
        self._hard_cap = max(shape.rows // 4, 8) if self._parity else 1
        self._cumulative = [np.zeros(units, np.int32)]
        self._planned = np.full(units, predicted if self._parity else 0, np.int32)
        self._targets = [self._planned.copy() for _ in _LEVELS]
        self._counts = [0] * len(_LEVELS)
        self._reports_this_round = 0
        self.round_sent = False
        """Whether the running round was handed out whole and waits for its completion."""
        self.learnt = False
        """Whether the prediction has learnt from this window."""
        self.sending = self._symbols(self._cumulative[0], self._planned)
        """Numbers of the symbols of the running round still to be sent, in order; empty between rounds."""
        self.marked = self._as_marked()
        """The window as marks state it."""

    @property
    def unit_count(self) -> int:
        """How many numbers a report has: one a codeword, without parity one a symbol."""
        return len(self._planned)

    @property
    def between_rounds(self) -> bool:
        """Whether nothing of a round is left to be sent."""
        return not len(self.sending)

    def complete_round(self, now: float) -> None:
        """Note that the running round is sent."""
        self.round += 1
        self.changed_at = now
        self.marked = self._as_marked()
        self._cumulative.append(self._planned.copy())
        self._reports_this_round = 0

    def report(self, round_number: int, deficits: NDArray[np.int32], now: float, gather_seconds: float) -> bool:
        """Fold one report in; return whether everybody has now answered this round.

        Deficits beyond the cap are not repaired in this pass: the window comes again in the next.
        """
        if not 1 <= round_number <= self.round:
            return False
        self.report_count += 1
        peak = int(deficits.max(initial=0))
        if round_number == 1:
            self.first_peaks.append(peak)
        if peak > self._hard_cap or peak < 1:
            return False
        if not self._parity and int(deficits.sum()) > max(self.shape.symbol_count // 4, 8):
            return False
        wanted = self._cumulative[round_number] + deficits * (deficits > 0)
        level = next(index for index, rows in enumerate(_LEVELS) if peak <= rows)
        np.maximum(self._targets[level], wanted, out=self._targets[level])
        self._counts[level] += 1
        self._reports_this_round += round_number == self.round
        if self.gather_until is None:
            self.gather_until = now + gather_seconds
        return self._reports_this_round >= self._members

    def answer(self) -> bool:
        """Close the gathering and begin the next round; return whether there is anything to send.

        In a large group the few that lack far more than the others, as after a stall, wait for the next pass or for
        unicast, which costs the group nothing, rather than make everybody wait for the parity that they need.
        """
        self.gather_until = None
        level = self._highest_level()
        self._counts = [0] * len(_LEVELS)
        target = np.maximum.reduce(self._targets[: level + 1])
        target = np.minimum(target, self._limit)
        self.sending = self._symbols(self._planned, target)
        np.maximum(self._planned, target, out=self._planned)
        self.marked = self._as_marked()
        return bool(len(self.sending))

    def _highest_level(self) -> int:
        """Returns the level of the largest deficits that are no exceptions: up to twice those of all but a few."""
        level, above = 0, sum(self._counts[1:])
        while above > self._members // _EXCEPTIONS:
            level += 1
            above -= self._counts[level]
        return level if not above else min(level + 1, len(_LEVELS) - 1)

    def regular_peaks(self) -> list[int]:
        """Returns the largest deficit of every report on round 1, exceptions left out; before `answer`."""
        most = _LEVELS[self._highest_level()]
        return [peak for peak in self.first_peaks if peak <= most]

    def take(self, limit: int) -> NDArray[np.int64]:
        """Returns the next symbols of the running round, at most `limit`."""
        taken, self.sending = self.sending[:limit], self.sending[limit:]
        return taken

    def _as_marked(self) -> MarkedWindow:
        rows = int(self._planned.max()) if self._parity else 0
        return MarkedWindow(self.window, self.round, min(rows, 0xFFFF))

    def _symbols(self, done: NDArray[np.int32], target: NDArray[np.int32]) -> NDArray[np.int64]:
        """Returns the symbols from `done` to `target`, row by row, so that neighbours belong to different codewords."""
        if not self._parity:
            return np.flatnonzero(target > done)
        low, high = int(done.min()), int(target.max())
        rows = np.arange(low, max(low, high), dtype=np.int64)[:, None]
        wanted = (rows >= done) & (rows < target)
        return np.flatnonzero(wanted) + low * len(done)


class ParityPrediction:
    """How many parity rows to send unasked, learnt from the reports so that about `REPORTERS_WANTED` remain."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._learnt = False
        self.rows = 0
        """Rows to send with the next window."""

    def begin(self, members: int) -> None:
        """Begin a pass for so many receivers: few need no prediction, their reports cost nothing."""
        if members <= REPORTERS_WANTED:
            self.rows = 0

    def expect(self, loss_shares: NDArray[np.float64], members: int) -> None:
        """Predict from the shares of datagrams that receivers lose, until reports teach better.

        The rows are those that all but `REPORTERS_WANTED` of the receivers need, if losses are independent: the normal
        approximation of the binomial at the loss of the worst receiver that is to be satisfied.
        """
        if self._learnt or not self._geometry.parity_symbols or members <= REPORTERS_WANTED or len(loss_shares) < 4:
            return
        left_out = REPORTERS_WANTED / members
        loss = float(np.quantile(loss_shares, 1 - min(left_out, 0.5)))
        if loss <= 0:
            return
        k = self._geometry.codeword_symbols
        spread = NormalDist().inv_cdf(1 - left_out / self._geometry.window_codewords)
        rows = k * loss + spread * (k * loss * (1 - loss)) ** 0.5
        self.rows = min(round(rows), k // 4, self._geometry.parity_symbols)

    def learn(self, predicted: int, peaks: list[int], members: int) -> None:
        """Learn from the largest deficits that were reported on a window with `predicted` rows."""
        if members <= REPORTERS_WANTED or not self._geometry.parity_symbols:
            self.rows = 0
            return
        self._learnt = True
        if len(peaks) > REPORTERS_WANTED:
            ordered = np.sort(np.asarray(peaks))
            more = int(ordered[-1 - REPORTERS_WANTED])
            most = min(self._geometry.codeword_symbols // 4, self._geometry.parity_symbols)
            # One window with many reports may be an accident such as a stall of a switch: at most double, plus 8 rows.
            self.rows = min(max(self.rows, min(predicted + more, 2 * predicted + 8)), most)
        elif len(peaks) < _FEW_REPORTERS:
            self.rows = max(0, min(self.rows, predicted - max(1, predicted // 16)))
