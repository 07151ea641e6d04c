"""The sender's real state machine with up to 10,000 simulated receivers: repair, reports and time at scale.

    python -m tests.bench.scale --receivers 100,10000 --case loss

Receivers are numbers: what each loses of a window is drawn per codeword, so a run of 10,000 takes seconds to minutes.
Time is simulated; the rate is fixed. Everything the engine sees - joins, reports, deficits, holdings - goes through its
inputs.
"""

import argparse
import heapq
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fleetcast_sender.engine.engine import Engine
from fleetcast_sender.engine.geometry_choice import GeometryOverrides, choose_geometry
from fleetcast_sender.engine.messages import Deficits, Holding, Join, Offered, PassEnded, Planned, Reception
from fleetcast_sender.engine.passes import SendMark, Train, Work
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.rate import RateController, RatePolicy
from fleetcast_wire.geometry import PassLayout, WindowShape
from fleetcast_wire.packet import Kind, Mark
from fleetcast_wire.runs import pack_runs
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20
DATAGRAM_BITS = (1448 + 28) * 8
LATENCY_SECONDS = 0.002
WINDOW_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Losses:
    """What receivers lose."""

    name: str
    share: float = 0.0
    """Independent loss of every receiver."""
    worst_share: float = 0.0
    """If set, shares are spread evenly in their logarithm from `share` to this."""
    burst_length: float = 0.0
    """If set, losses come in bursts of this mean length, `share` in all."""
    stalled: int = 0
    """Receivers that hear nothing for 100 ms in every second."""


CASES = (
    Losses("none"),
    Losses("independent 0.1 %", 0.001),
    Losses("independent 1 %", 0.01),
    Losses("independent 5 %", 0.05),
    Losses("bursts of 100, 0.1 %", 0.001, burst_length=100),
    Losses("bursts of 20, 1 %", 0.01, burst_length=20),
    Losses("0.01 % to 2 %", 0.0001, worst_share=0.02),
    Losses("1 %, ten stall", 0.01, stalled=10),
    Losses("none, ten stall", 0.0, stalled=10),
)


@dataclass(frozen=True)
class Outcome:
    """One run."""

    losses: str
    receivers: int
    window_codewords: int
    repair_percent: float
    """Repair symbols for each 100 source symbols of the image, all passes."""
    bound_percent: float
    """What a perfect code needs: the loss of the worst receiver, independent losses taken at their mean."""
    reports_per_window: float
    pass_count: int
    others_seconds_over: float
    """Completion of the receivers that do not stall beyond sending the image once without repair, in per cent."""
    all_seconds_over: float
    unicast_mbytes: float
    processor_seconds: float


def _column_lengths(shape: WindowShape) -> NDArray[np.int32]:
    """Returns how many source symbols each codeword has, shape (codewords,)."""
    full, extra = divmod(shape.symbol_count, shape.codewords)
    return np.where(np.arange(shape.codewords) < extra, full + 1, full).astype(np.int32)


class Population:
    """The receivers: what each lacks of each open window."""

    def __init__(self, losses: Losses, count: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.losses = losses
        self.count = count
        self.shares = np.full(count, losses.share)
        if losses.worst_share:
            self.shares = np.geomspace(losses.share, losses.worst_share, count)
        self.stall_at = self.random.uniform(0, 1, losses.stalled)
        self.deficits: dict[int, NDArray[np.int32]] = {}
        self.sent_rows: dict[int, NDArray[np.int32]] = {}

    def lose_window(self, window: int, shape: WindowShape, seconds: tuple[float, float]) -> None:
        """Draw what everybody loses of a window's source, sent from one time to another."""
        columns = _column_lengths(shape)
        if self.losses.burst_length:
            lost = self._bursts(shape)
        elif self.shares.any():
            lost = self.random.binomial(columns[None, :], self.shares[:, None]).astype(np.int32)
        else:
            lost = np.zeros((self.count, shape.codewords), np.int32)
        for stalled, phase in enumerate(self.stall_at):
            lost[stalled] += np.ceil(self._stalled_share(phase, *seconds) * columns).astype(np.int32)
        self.deficits[window] = np.minimum(lost, columns)

    def _stalled_share(self, phase: float, start: float, end: float) -> float:
        """Returns the share of a span that lies in [n + phase, n + phase + 0.1] for any n."""
        lost = 0.0
        for n in range(int(start) - 1, int(end) + 1):
            lost += max(0.0, min(end, n + phase + 0.1) - max(start, n + phase))
        return lost / max(end - start, 1e-9)

    def _bursts(self, shape: WindowShape) -> NDArray[np.int32]:
        mean, n, codewords = self.losses.burst_length, shape.symbol_count, shape.codewords
        counts = self.random.poisson(n * self.losses.share / mean, self.count)
        owners = np.repeat(np.arange(self.count), counts)
        lengths = self.random.geometric(1 / mean, len(owners))
        starts = self.random.integers(0, n, len(owners))
        lengths = np.minimum(lengths, n - starts)
        lost = np.zeros((self.count, codewords), np.int32)
        np.add.at(lost, owners, (lengths // codewords).astype(np.int32)[:, None])
        first = (starts + lengths // codewords * codewords) % codewords
        for owner, at, rest in zip(owners.tolist(), first.tolist(), (lengths % codewords).tolist(), strict=True):
            lost[owner, at : at + rest] += 1
            lost[owner, : max(0, at + rest - codewords)] += 1
        return lost

    def hear_parity(self, window: int, symbols: NDArray[np.int64]) -> None:
        """Take parity off the deficits, as far as it arrives."""
        deficits = self.deficits[window]
        rows = np.bincount(symbols % deficits.shape[1], minlength=deficits.shape[1])
        lacking = np.flatnonzero(deficits.any(axis=1))
        shares = self.shares[lacking] if not self.losses.burst_length else np.full(len(lacking), self.losses.share)
        arrived = self.random.binomial(np.broadcast_to(rows, (len(lacking), len(rows))), 1 - shares[:, None])
        deficits[lacking] = np.maximum(deficits[lacking] - arrived, 0)


class Simulation:
    """One engine, its receivers, and a clock that is a number."""

    def __init__(self, losses: Losses, receivers: int, size_bytes: int, rate: float, seed: int) -> None:
        self.population = Population(losses, receivers, seed)
        self.rate = rate
        chunk_count = size_bytes // CHUNK_BYTES
        self.sizes = np.full(chunk_count, CHUNK_BYTES, np.int64)
        join = Join("", np.zeros(chunk_count, np.bool_), codecs=frozenset({"leopard-rs16"}))
        join = Join("", join.held, window_memory_bytes=WINDOW_MEMORY_BYTES, codecs=join.codecs)
        self.geometry = choose_geometry(
            [join],
            receiver_count=receivers,
            stream_bytes=size_bytes,
            mtu_bytes=1500,
            ip_version=4,
            overrides=GeometryOverrides(),
        )
        self.engine = Engine(self.geometry, self.sizes, TransmissionPolicy(), window_slots=3)
        self.controller = RateController(RatePolicy(int(rate)), link_bits_per_second=0, datagram_bits=DATAGRAM_BITS)
        self.join = join
        self.lacking = np.ones((receivers, chunk_count), np.bool_)
        self.completed_at = np.full(receivers, np.inf)
        self.now = 10.0
        self.unicast_bytes = 0
        self.counter = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._reported: dict[int, int] = {}
        self._started: dict[int, float] = {}
        self._open: set[int] = set()
        self._interval = 1.0

    def run(self) -> Outcome:
        """Run until everybody has everything."""
        began = time.process_time()
        for seat in range(self.population.count):
            self.engine.join(seat, self.join, self.now)
        for seat in range(self.population.count):
            self.engine.ready(seat, self.now)
            self.controller.join(seat, 0, self.now)
        self._interval = self.engine.report_interval_seconds
        for seat, phase in enumerate(self.population.random.uniform(0, self._interval, self.population.count)):
            self._after(float(phase), self._reporter(seat))
        start = self.now + 0.03 + 0.0001 * self.population.count
        update_at = self.now
        while self.lacking.any() and self.now < start + 3600:
            self._fire()
            if self.now >= update_at:
                update_at = self.now + 0.05
                members = self.population.count
                self.engine.prediction.expect(np.array(self.controller.loss_shares()), members)
            self._turn()
        totals = self.engine.totals
        image_symbols = int(self.sizes.sum()) / self.geometry.symbol_bytes
        ideal = image_symbols * DATAGRAM_BITS / self.rate
        others = self.completed_at[self.population.losses.stalled :]
        worst = float(self.population.shares.max())
        return Outcome(
            self.population.losses.name,
            self.population.count,
            self.geometry.window_codewords,
            100 * totals.repair_symbol_count / image_symbols,
            100 * worst / (1 - worst),
            totals.report_count / max(totals.window_count, 1),
            totals.pass_count,
            100 * ((float(others.max()) - start) / ideal - 1),
            100 * ((float(self.completed_at.max()) - start) / ideal - 1),
            self.unicast_bytes / 1e6,
            time.process_time() - began,
        )

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def _fire(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    def _reporter(self, seat: int) -> Callable[[], None]:
        def report() -> None:
            heard = self.counter - 1
            count = round((heard + 1) * (1 - self.population.shares[seat]))
            self.engine.heard(seat, self.now)
            if heard > 0:
                self.controller.report(seat, Reception(heard, count), self.counter, self.now)
            if not np.isfinite(self.completed_at[seat]):
                self._after(self._interval, report)

        return report

    def _turn(self) -> None:
        sent = self.engine.next(self.now, 1024)
        for item in self.engine.take_work():
            if item.work is Work.LOAD:
                self.engine.loaded(item.pass_number, item.window)
            elif item.work is Work.ENCODE:
                self.engine.encoded(item.pass_number, item.window)
        if isinstance(sent, Train):
            self._hear(sent)
            self.counter += len(sent.symbols)
            self.now += len(sent.symbols) * DATAGRAM_BITS / self.rate
        elif isinstance(sent, SendMark):
            self._after(LATENCY_SECONDS, lambda: self._hear_mark(sent.pass_number, sent.mark))
        else:
            wake = min(self.engine.wake_at(self.now), self._events[0][0] if self._events else self.now + 1)
            self.now = max(wake, self.now + 0.0005)
        for seat, told in self.engine.take_told():
            match told:
                case Planned():
                    self._layout: PassLayout = self.engine.layouts[told.pass_number]
                case PassEnded():
                    self._after(LATENCY_SECONDS * 2, self._holder(seat, told.pass_number))
                case Offered():
                    self._fetch(seat, told.chunks)

    def _hear(self, train: Train) -> None:
        if train.kind is Kind.PARITY:
            self.population.hear_parity(train.window, train.symbols)
            return
        if train.window not in self._started:
            self._started[train.window] = self.now
        shape = self._layout.window(train.window)
        if int(train.symbols[-1]) + 1 == shape.symbol_count:
            end = self.now + len(train.symbols) * DATAGRAM_BITS / self.rate
            self.population.lose_window(train.window, shape, (self._started[train.window], end))
            wanted = self.lacking[:, self._layout.chunks[list(self._layout.window_chunks(train.window))]].any(axis=1)
            self.population.deficits[train.window][~wanted] = 0
            self._reported[train.window] = 0
            self._open.add(train.window)

    def _hear_mark(self, pass_number: int, mark: Mark) -> None:
        marked = {entry.window: entry.round for entry in mark.windows}
        for window in sorted(self._open):
            if window not in marked and any(other > window for other in marked):
                self._close(window)
        for window, round_number in marked.items():
            if window in self._open and self._reported[window] < round_number:
                self._reported[window] = round_number
                self._report(pass_number, window, round_number)

    def _report(self, pass_number: int, window: int, round_number: int) -> None:
        deficits = self.population.deficits[window]
        peaks: NDArray[np.int32] = deficits.max(axis=1)
        cap = max(self._layout.window(window).rows // 4, 8)
        for seat in np.flatnonzero((peaks > 0) & (peaks <= cap)).tolist():
            values, lengths = pack_runs(deficits[seat])
            self.engine.deficits(seat, Deficits(pass_number, window, round_number, values, lengths), self.now)
        self._complete(window, np.logical_not(peaks))

    def _complete(self, window: int, seats: Any) -> None:
        """Mark the chunks of a window as held by those who lack nothing of it; shared ones count with the later."""
        layout = self._layout
        positions = [p for p in layout.window_chunks(window) if layout.chunk_windows(p)[-1] == window]
        chunks = layout.chunks[positions]
        self.lacking[np.ix_(seats, chunks)] = False
        self._note_completed(seats)

    def _note_completed(self, seats: NDArray[np.bool_]) -> None:
        done = seats & ~np.isfinite(self.completed_at) & ~self.lacking.any(axis=1)
        for seat in np.flatnonzero(done).tolist():
            self.completed_at[seat] = self.now
            self.engine.done(seat, self.now)

    def _close(self, window: int) -> None:
        """Let a window go; who lost a stretch of it lacks the chunks of that stretch only."""
        self._open.discard(window)
        deficits = self.population.deficits.pop(window)
        layout, shape = self._layout, self._layout.window(window)
        self._complete(window, ~deficits.any(axis=1))
        chunks = layout.chunks[[p for p in layout.window_chunks(window) if layout.chunk_windows(p)[-1] == window]]
        for seat in np.flatnonzero(deficits.any(axis=1)).tolist():
            share = float(deficits[seat].sum()) / shape.symbol_count
            if seat < self.population.losses.stalled or self.population.losses.burst_length:
                kept = max(0, len(chunks) - int(np.ceil(share * len(chunks))) - 1)
                self.lacking[seat, chunks[:kept]] = False
        self._note_completed(np.ones(self.population.count, np.bool_))

    def _holder(self, seat: int, pass_number: int) -> Callable[[], None]:
        def report() -> None:
            for window in sorted(self._open):
                self._close(window)
            self._started.clear()
            if not np.isfinite(self.completed_at[seat]):
                self.engine.holding(seat, Holding(pass_number, ~self.lacking[seat]), self.now)

        return report

    def _fetch(self, seat: int, chunks: NDArray[np.bool_]) -> None:
        size = int(self.sizes[chunks].sum())
        self.unicast_bytes += size

        def fetched() -> None:
            self.lacking[seat, chunks] = False
            self.engine.holding(seat, Holding(self.engine.pass_number, ~self.lacking[seat]), self.now)
            self._note_completed(np.arange(self.population.count) == seat)

        # Half of the link is left for unicast while nothing else is sent.
        self._after(LATENCY_SECONDS + size * 16 / self.rate, fetched)


def run_cases(
    cases: Sequence[Losses], receivers: Sequence[int], size_bytes: int, rate: float, seed: int
) -> Iterator[Outcome]:
    """Yield the outcome of every case with every number of receivers."""
    for losses in cases:
        for count in receivers:
            if losses.stalled < count:
                yield Simulation(losses, count, size_bytes, rate, seed).run()


def _row(o: Outcome) -> str:
    cells = [o.losses, f"{o.receivers:,}", str(o.window_codewords), f"{o.repair_percent:.2f}", f"{o.bound_percent:.2f}"]
    cells += [f"{o.reports_per_window:.1f}", str(o.pass_count), f"{o.others_seconds_over:.1f}"]
    cells += [f"{o.all_seconds_over:.1f}", f"{o.unicast_mbytes:.0f}", f"{o.processor_seconds:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receivers", default="10,100,1000,10000", help="numbers of receivers")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--gib", type=float, default=4.0, help="size of the image in GiB")
    parser.add_argument("--rate", type=float, default=1e9, help="bits per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.case in case.name]
    counts = [int(text) for text in arguments.receivers.split(",")]
    if not arguments.json:
        print(
            "| losses | receivers | D | repair % | bound % | reports a window | passes | others over % | all over % "
            "| unicast MB | CPU s |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
    for outcome in run_cases(cases, counts, int(arguments.gib * (1 << 30)), arguments.rate, arguments.seed):
        if arguments.json:
            print(json.dumps(asdict(outcome)))
        else:
            print(_row(outcome))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
