"""A sender's engine and machines that are numbers, with a clock that is a number: for hours and hundreds of machines.

A chunk counts as received when a machine heard every symbol of it. There is no loss but that of pauses and gaps, so
nothing is repaired. Beside it stands an ideal carousel, which knows everything at once.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from fleetcast_sender.engine.engine import Engine, Phase
from fleetcast_sender.engine.messages import (
    Dismissed,
    Holding,
    Join,
    Offered,
    PassEnded,
    Planned,
    Told,
    UnicastReason,
    Welcomed,
)
from fleetcast_sender.engine.passes import SendMark, Train, Work
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_wire.geometry import Geometry
from numpy.typing import NDArray

SYMBOL_BYTES = 1408
CODECS = frozenset({"leopard-rs16"})
UNICAST_SHARE = 0.05
"""Of the link, beside a pass, as a sender limits it."""
_TRAINS_PER_COPY = 300


@dataclass(frozen=True)
class Away:
    """A time in which a machine, or the sender, is not there."""

    starts_at: float
    seconds: float

    @property
    def ends_at(self) -> float:
        return self.starts_at + self.seconds


@dataclass(frozen=True)
class MachinePlan:
    """What becomes of one machine."""

    arrives_at: float
    holds: float = 0.0
    """Share of the image that it holds when it comes, from the image's beginning."""
    pauses: tuple[Away, ...] = ()
    """The whole machine stands still."""
    gaps: tuple[Away, ...] = ()
    """No multicast reaches it; what it says reaches the sender."""
    answer_seconds: float = 0.02
    """How long it takes to say what it holds after a pass: its writers may lag."""
    ready_seconds: float = 0.05
    """How long it takes from joining to hearing the group."""


@dataclass(frozen=True)
class Story:
    """Everything that happens."""

    machines: Sequence[MachinePlan]
    chunk_count: int
    chunk_bytes: int
    bits_per_second: float
    sender_pauses: tuple[Away, ...] = ()
    sender_restarts: tuple[float, ...] = ()

    @property
    def copy_seconds(self) -> float:
        """How long one copy of the image takes on the link."""
        return self.chunk_count * self.chunk_bytes * 8 / self.bits_per_second


@dataclass
class Outcome:
    """What was sent, and when each machine had everything."""

    multicast_bytes: float = 0.0
    unicast_bytes: float = 0.0
    ended_at: list[float] = field(default_factory=list)
    pass_count: int = 0
    offer_count: int = 0
    largest_offer_bytes: int = 0

    @property
    def sent_bytes(self) -> float:
        return self.multicast_bytes + self.unicast_bytes


def is_away(times: Sequence[Away], now: float) -> bool:
    return bool(times) and any(away.starts_at <= now < away.ends_at for away in times)


def ideal(story: Story) -> Outcome:
    """Returns what a carousel does that sends chunk after chunk, round the image, and never one that nobody lacks.

    It begins where a sender does, with what most of the first machines lack: who comes later is not known to either.
    """
    held = initially_held(story)
    ready_at = np.array([it.arrives_at + it.ready_seconds for it in story.machines])
    chunk_seconds = story.chunk_bytes * 8 / story.bits_per_second
    outcome = Outcome(ended_at=np.where(held.all(1), ready_at, np.inf).tolist())
    now = 0.0
    position: int | None = None
    while not held.all():
        if paused := next((it for it in story.sender_pauses if it.starts_at <= now < it.ends_at), None):
            now = paused.ends_at
        absent = np.array([is_away(it.pauses, now) for it in story.machines])
        present = (ready_at <= now) & ~absent & ~held.all(1)
        if not present.any():
            returns = [pause.ends_at for machine in story.machines for pause in machine.pauses]
            now = min(at for at in [*ready_at, *returns] if at > now)
            continue
        counts = (~held[present]).sum(0)
        wanted = np.flatnonzero(counts)
        position = int(np.argmax(counts)) if position is None else position
        position = int(wanted[np.searchsorted(wanted, position) % len(wanted)])
        deaf = np.array([is_away(it.gaps, now) for it in story.machines])
        now += chunk_seconds
        outcome.multicast_bytes += story.chunk_bytes
        complete = held.all(1)
        held[present & ~deaf, position] = True
        for index in np.flatnonzero(held.all(1) & ~complete):
            outcome.ended_at[index] = now
        position += 1
    return outcome


def initially_held(story: Story) -> NDArray[np.bool_]:
    """Returns what each machine holds at first; shape (machines, chunks)."""
    counts = np.array([[round(it.holds * story.chunk_count)] for it in story.machines])
    return np.arange(story.chunk_count)[None, :] < counts


@dataclass
class _Machine:
    index: int
    plan: MachinePlan
    seat: int = 0
    ready: bool = False
    pass_number: int = 0
    """The pass that it listens to; 0 for none."""
    heard_from: int = 0
    """Place in that pass's stream from which on it has heard everything."""
    fetching: list[int] = field(default_factory=list)
    fetched_bytes: float = 0.0
    offers: list[NDArray[np.bool_]] = field(default_factory=list)
    """Those that wait for the one that is being fetched."""
    inbox: list[Told] = field(default_factory=list)
    apart: bool = False


class Simulation:
    """Lets a story happen to the real engine."""

    def __init__(self, story: Story, *, stream_seconds: float = 0.005) -> None:
        self.story = story
        self.policy = TransmissionPolicy()
        self.now = 0.0
        self.outcome = Outcome(ended_at=[np.inf] * len(story.machines))
        self.held = initially_held(story)
        self.machines = [_Machine(index, plan) for index, plan in enumerate(story.machines)]
        self.reasons: set[UnicastReason] = set()
        self._stream_seconds = stream_seconds
        self._sizes = np.full(story.chunk_count, story.chunk_bytes, np.int64)
        self._bytes_per_second = story.bits_per_second / 8
        symbols = story.chunk_count * story.chunk_bytes // SYMBOL_BYTES
        self._limit = max(symbols // _TRAINS_PER_COPY, 1)
        window_codewords = max(1, min(16, symbols // 500 // 40))
        self._geometry = Geometry(SYMBOL_BYTES, 500, window_codewords, 128, "leopard-rs16")
        self._seats = itertools.count(1)
        self._by_seat: dict[int, _Machine] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._fetching: dict[int, _Machine] = {}
        self._stream_pass, self._stream_place = 0, 0
        self._pauses = sorted(story.sender_pauses, key=lambda it: it.starts_at)
        self.engine = self._new_engine()
        for machine in self.machines:
            self._at(machine.plan.arrives_at, lambda machine=machine: self._join(machine))  # type: ignore[misc]
            for pause in machine.plan.pauses:
                self._at(pause.ends_at, lambda machine=machine: self._resume(machine))  # type: ignore[misc]
        for restart in story.sender_restarts:
            self._at(restart, self._restart)
        self._at(0.05, self._report)

    def run(self, limit_seconds: float) -> Outcome:
        """Let time pass until everybody has everything."""
        while not self.held.all() and self.now < limit_seconds:
            self._turn()
        return self.outcome

    def _new_engine(self) -> Engine:
        return Engine(self._geometry, self._sizes, self.policy, window_slots=8)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def _later(self, what: Callable[[], None], seconds: float = 0.0) -> None:
        self._at(self.now + self._stream_seconds + seconds, what)

    # Time

    def _turn(self) -> None:
        if self._pauses and self._pauses[0].starts_at <= self.now:
            self.now = max(self.now, self._pauses.pop(0).ends_at)
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
        sent = self.engine.next(self.now, self._limit)
        for item in self.engine.take_work():
            if item.work is Work.LOAD:
                self.engine.loaded(item.pass_number, item.window)
            elif item.work is Work.ENCODE:
                self.engine.encoded(item.pass_number, item.window)
        self._deliver()
        match sent:
            case Train():
                size = len(sent.symbols) * SYMBOL_BYTES
                fetching = UNICAST_SHARE if self._fetchers() else 0.0
                start = sent.window * self._geometry.window_symbols + int(sent.symbols[0])
                self._pass_time(size / (self._bytes_per_second * (1 - fetching)))
                self.outcome.multicast_bytes += size
                self._hear(sent.pass_number, start, start + len(sent.symbols))
            case SendMark():
                self._pass_time(0.0001)
            case None:
                times = [self.engine.wake_at(self.now), self.now + 0.1]
                times += [self._events[0][0]] if self._events else []
                if fetchers := self._fetchers():
                    share = self._fetch_rate() / len(fetchers)
                    left = min(len(it.fetching) * self.story.chunk_bytes - it.fetched_bytes for it in fetchers)
                    times.append(self.now + left / share)
                self._pass_time(max(min(times) - self.now, 0.0001))

    def _fetchers(self) -> list[_Machine]:
        return [it for it in self._fetching.values() if not is_away(it.plan.pauses, self.now)]

    def _fetch_rate(self) -> float:
        return self._bytes_per_second * (UNICAST_SHARE if self.engine.phase is Phase.SENDING else 1.0)

    def _pass_time(self, seconds: float) -> None:
        fetchers = self._fetchers()
        rate = self._fetch_rate()
        self.now += seconds
        for machine in fetchers:
            machine.fetched_bytes += rate * seconds / len(fetchers)
            while machine.fetching and machine.fetched_bytes >= self.story.chunk_bytes - 1:
                machine.fetched_bytes -= self.story.chunk_bytes
                self.outcome.unicast_bytes += self.story.chunk_bytes
                self._receive(machine, machine.fetching.pop(0))
            if not machine.fetching:
                machine.fetched_bytes = 0.0
                del self._fetching[machine.index]
                self._answer(machine, self._stream_seconds)
                self._fetch_next(machine)

    # The group

    def _hear(self, pass_number: int, start: int, stop: int) -> None:
        """Let everybody who listens have the symbols of the stream from `start` to `stop`."""
        layout = self.engine.layouts[pass_number]
        stream_bytes = len(layout.chunks) * self.story.chunk_bytes
        done = min(stop * SYMBOL_BYTES, stream_bytes) // self.story.chunk_bytes
        first = start * SYMBOL_BYTES // self.story.chunk_bytes
        skipped = start > self._place_in(pass_number)
        self._stream_pass, self._stream_place = pass_number, stop
        for machine in self._by_seat.values():
            if machine.pass_number != pass_number:
                continue
            deaf = is_away(machine.plan.gaps, self.now) or is_away(machine.plan.pauses, self.now)
            if deaf or not machine.ready:
                machine.heard_from = stop
                continue
            if skipped:
                machine.heard_from = max(machine.heard_from, start)
            complete_from = -(-machine.heard_from * SYMBOL_BYTES // self.story.chunk_bytes)
            for position in range(max(first, complete_from), done):
                self._receive(machine, int(layout.chunks[position]))

    def _place_in(self, pass_number: int) -> int:
        """Returns up to where the stream of a pass was sent."""
        return self._stream_place if self._stream_pass == pass_number else 0

    def _receive(self, machine: _Machine, chunk: int) -> None:
        row = self.held[machine.index]
        if not row[chunk]:
            row[chunk] = True
            if row.all():
                self.outcome.ended_at[machine.index] = self.now
                self._say(machine, self._leave)

    # What machines say and hear

    def _say(self, machine: _Machine, what: Callable[[int], None], seconds: float = 0.0) -> None:
        seat = machine.seat
        self._later(lambda: what(seat), seconds)

    def _leave(self, seat: int) -> None:
        self.engine.done(seat, self.now)
        self.engine.leave(seat, self.now)
        self._by_seat.pop(seat, None)

    def _report(self) -> None:
        for seat, machine in self._by_seat.items():
            if not is_away(machine.plan.pauses, self.now):
                self.engine.heard(seat, self.now)
        self._at(self.now + self.engine.report_interval_seconds, self._report)

    def _join(self, machine: _Machine) -> None:
        self._by_seat.pop(machine.seat, None)
        machine.seat = next(self._seats)
        self._by_seat[machine.seat] = machine
        machine.inbox.clear()
        machine.fetching, machine.fetched_bytes, machine.pass_number, machine.ready = [], 0.0, 0, False
        machine.offers.clear()
        self._fetching.pop(machine.index, None)
        join = Join(f"machines/{machine.index}", self.held[machine.index].copy(), codecs=CODECS)
        self.engine.join(machine.seat, join, self.now)
        self._deliver()
        seat = machine.seat
        self._at(self.now + machine.plan.ready_seconds, lambda: self._ready(machine, seat))

    def _ready(self, machine: _Machine, seat: int) -> None:
        if machine.seat == seat:
            machine.ready, machine.heard_from = True, self._place_in(machine.pass_number)
            self.engine.ready(seat, self.now)

    def _resume(self, machine: _Machine) -> None:
        for told in machine.inbox:
            self._take(machine, told)
        machine.inbox.clear()

    def _deliver(self) -> None:
        for seat, told in self.engine.take_told():
            machine = self._by_seat.get(seat)
            if machine:
                self._later(lambda machine=machine, seat=seat, told=told: self._arrive(machine, seat, told))  # type: ignore[misc]

    def _arrive(self, machine: _Machine, seat: int, told: Told) -> None:
        if machine.seat != seat:
            return
        if is_away(machine.plan.pauses, self.now):
            machine.inbox.append(told)
        else:
            self._take(machine, told)

    def _take(self, machine: _Machine, told: Told) -> None:
        match told:
            case Welcomed():
                machine.apart = told.unicast_only
            case Planned():
                machine.pass_number = told.pass_number
                machine.heard_from = self._place_in(told.pass_number)
            case PassEnded():
                machine.pass_number = 0
                self._answer(machine, machine.plan.answer_seconds)
            case Offered():
                size = int(self._sizes[told.chunks].sum())
                self.outcome.offer_count += 1
                self.outcome.largest_offer_bytes = max(self.outcome.largest_offer_bytes, size)
                machine.offers.append(told.chunks)
                self._fetch_next(machine)
            case Dismissed():
                self._join(machine)

    def _fetch_next(self, machine: _Machine) -> None:
        while not machine.fetching and machine.offers:
            chunks = machine.offers.pop(0) & ~self.held[machine.index]
            machine.fetching = np.flatnonzero(chunks).tolist()
            if machine.fetching:
                self._fetching[machine.index] = machine
            else:
                self._answer(machine, self._stream_seconds)

    def _answer(self, machine: _Machine, seconds: float) -> None:
        number = self.engine.pass_number

        def say(seat: int) -> None:
            self.engine.holding(seat, Holding(number, self.held[machine.index].copy()), self.now)

        self._say(machine, say, seconds)

    def _restart(self) -> None:
        self.outcome.pass_count += self.engine.totals.pass_count
        self.engine = self._new_engine()
        self._stream_pass = 0
        back = [it for it in self.machines if it.seat and not self.held[it.index].all()]
        self._by_seat.clear()
        self._fetching.clear()
        self.engine.expect([f"machines/{it.index}" for it in back], self.now)
        for machine in back:
            machine.seat, machine.pass_number, machine.fetching = 0, 0, []
            machine.offers.clear()
            self._at(self.now + 0.2 + 0.01 * machine.index, lambda machine=machine: self._join(machine))  # type: ignore[misc]
