"""The transmission's state machine: receivers, passes, what goes by unicast.

Pure: events and `now` come in, trains and messages go out. It never waits for anyone: a receiver's silence, lag or
death changes what is sent next, not when the others are served.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum

import numpy as np
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.packet import Kind, datagram_bytes
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import (
    Deficits,
    Dismissed,
    Holding,
    Join,
    Offered,
    PassEnded,
    Planned,
    Told,
    Welcomed,
)
from fleetcast_sender.engine.needs import Needs
from fleetcast_sender.engine.passes import Pass, SendMark, Train, WorkItem
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.repair import ParityPrediction
from fleetcast_sender.engine.roster import Participant, Totals

MAX_PASS_NUMBER = 0xFFFF
_FEW_MEMBERS = ((2, 0.05), (4, 0.1))
_REPORT_SECONDS = 0.2


class Phase(Enum):
    """What the transmission does."""

    IDLE = "idle"
    """No pass runs: nobody lacks anything, or what is lacking goes by unicast, or receivers are still getting ready."""
    SENDING = "sending"
    ENDING = "ending"
    """A pass has ended; the receivers say what they hold."""


class Engine:
    """One transmission to one group.

    Args:
        geometry: of its windows.
        stored_size_bytes: shape (chunk_count,), 0 for zero chunks.
        policy: times and shares.
        window_slots: windows that the caller can keep in memory at once, at least 3.
    """

    def __init__(
        self,
        geometry: Geometry,
        stored_size_bytes: NDArray[np.int64],
        policy: TransmissionPolicy,
        *,
        window_slots: int,
    ) -> None:
        self.geometry = geometry
        self.totals = Totals()
        self.phase = Phase.IDLE
        self.current: Pass | None = None
        """The running pass, or the one that is ending."""
        self.prediction = ParityPrediction(geometry)
        self.layouts: dict[int, PassLayout] = {}
        """Layouts of passes of which work is outstanding."""
        self._policy = policy
        self._sizes = stored_size_bytes
        self._needs = Needs(stored_size_bytes)
        self._slots = window_slots
        self._participants: dict[int, Participant] = {}
        self._expected: dict[str, float] = {}
        self._lacking: set[int] = set()
        self._members: set[int] = set()
        self._told: deque[tuple[int, Told]] = deque()
        self._wait_until: float | None = None
        self._send_from = 0.0
        self._ended_at = 0.0
        self._end_mark_at = 0.0
        self._check_silence_at = 0.0
        self._heard_at = 0.0
        self._pass_number = 0
        self._awaited = 0
        self._needs_changed = False

    # Inputs

    def expect(self, machines: Sequence[str], now: float) -> None:
        """Note that these machines were admitted: the first pass waits for them a little."""
        for machine in machines:
            self._expected[machine] = now + self._policy.start_grace_seconds

    def join(self, seat: int, join: Join, now: float) -> None:
        """Let a receiver in; `seat` is new for every stream."""
        self._expected.pop(join.machine, None)
        unicast = join.unicast_only or not self._fits(join)
        participant = Participant(seat, join, now, unicast=unicast)
        self._participants[seat] = participant
        self._needs.put(seat, join.held)
        if not unicast:
            self._needs.count(seat)
        participant.lacking_bytes = self._needs.lacking_bytes(seat)
        self._heard_at = now
        self._tell(seat, Welcomed(self.geometry, unicast, self.report_interval_seconds))
        if self.current and self.phase is Phase.SENDING and not unicast:
            self._tell(seat, self._plan_of(self.current))
        self._sort_in(participant)

    def ready(self, seat: int, now: float) -> None:
        """Note that the receiver hears the group, or is ready to fetch."""
        if participant := self._hear(seat, now):
            participant.ready = True
            self._sort_in(participant)
            self._offer_alone(participant)

    def heard(self, seat: int, now: float) -> None:
        """Note that the receiver lives."""
        self._hear(seat, now)

    def deficits(self, seat: int, report: Deficits, now: float) -> None:
        """Take a report on one window.

        Raises:
            RunsError: the report does not fit the window.
        """
        if (participant := self._hear(seat, now)) and self.current and not participant.unicast:
            self.current.deficits(report, now)

    def holding(self, seat: int, holding: Holding, now: float) -> None:
        """Take everything that a receiver holds."""
        participant = self._hear(seat, now)
        if not participant:
            return
        before = participant.lacking_bytes
        self._needs_changed = True
        self._needs.put(seat, holding.held)
        participant.lacking_bytes = self._needs.lacking_bytes(seat)
        self._sort_in(participant)
        fresh = self.phase is not Phase.ENDING or holding.pass_number >= self._pass_number
        answers_offer, participant.offered = participant.offered, False
        if answers_offer or self.phase is Phase.ENDING:
            progressed = participant.lacking_bytes < before or not participant.lacking_bytes
            participant.stuck_count = 0 if progressed else participant.stuck_count + 1
            if participant.stuck_count >= self._policy.stuck_offer_count:
                self._give_up(participant)
                return
        if fresh and not participant.unicast:
            if self.phase is Phase.ENDING and not self._needs.counted(seat):
                self._awaited -= 1
            self._needs.count(seat)
        if fresh:
            participant.asked_at = None
        self._offer_alone(participant)

    def done(self, seat: int, now: float) -> None:
        """Note that the receiver lacks nothing any more."""
        if participant := self._hear(seat, now):
            if self.phase is Phase.ENDING and participant.ready and not self._needs.counted(seat):
                self._awaited -= 1
            self._needs_changed = True
            self._needs.put(seat, np.ones(len(self._sizes), np.bool_))
            self._needs.count(seat)
            participant.lacking_bytes = 0
            participant.offered = False
            participant.asked_at = None
            self._sort_in(participant)

    def leave(self, seat: int, now: float) -> None:
        """Note that the receiver's stream ended."""
        self._remove(seat)

    def dismiss(self, seat: int, reason: str) -> None:
        """Take a receiver out and tell it why."""
        if seat in self._participants:
            self._tell(seat, Dismissed(reason))
            self._remove(seat)

    def move_to_unicast(self, seat: int) -> None:
        """Serve a receiver apart from the group from now on."""
        participant = self._participants.get(seat)
        if participant and not participant.unicast:
            participant.unicast = True
            if self.phase is Phase.ENDING and not self._needs.counted(seat):
                self._awaited -= 1
            self._needs_changed = True
            self._needs.uncount(seat)
            self._sort_in(participant)
            if self.phase is Phase.SENDING and participant.ready and participant.asked_at is None:
                # The pass is over for it. What it got of it, it says, and is offered the rest.
                participant.asked_at = self._heard_at
                self._tell(seat, PassEnded(self._pass_number))
            else:
                self._offer_alone(participant)

    # Outputs

    @property
    def report_interval_seconds(self) -> float:
        """How often receivers are to report: at most 1,000 reports a second in all, each at least every 2 s.

        Five a second say enough of one receiver, unless its buffer fills faster, as where few share all of a fast host.
        """
        members = len(self._participants) + len(self._expected)
        usual = next((seconds for most, seconds in _FEW_MEMBERS if members <= most), _REPORT_SECONDS)
        return min(2.0, max(usual, members / 1000))

    @property
    def participant_count(self) -> int:
        """Receivers that are heard."""
        return len(self._participants)

    @property
    def member_count(self) -> int:
        """Receivers that take the multicast and lack something."""
        return len(self._members)

    @property
    def lacking(self) -> bool:
        """Whether a receiver that is heard lacks anything."""
        return bool(self._lacking)

    @property
    def pass_number(self) -> int:
        """Number of the running or the last pass; 0 before the first."""
        return self._pass_number

    def unheard(self, now: float) -> bool:
        """Returns whether no receiver was heard for so long that nothing more is sent until one is."""
        return now - self._heard_at > 1 + 2 * self.report_interval_seconds

    def take_told(self) -> list[tuple[int, Told]]:
        """Returns the messages to receivers since the last call, by seat."""
        told = list(self._told)
        self._told.clear()
        return told

    def take_work(self) -> list[WorkItem]:
        """Returns the work on windows since the last call."""
        if not self.current or not self.current.work:
            return []
        work = list(self.current.work)
        self.current.work.clear()
        return work

    def next(self, now: float, limit: int) -> Train | SendMark | None:
        """Returns what to send next, at most `limit` symbols; None when nothing is to be sent before `wake_at`."""
        self._tick(now)
        if not self.current:
            return None
        if self.unheard(now):
            return None
        if self.phase is Phase.ENDING:
            if now < self._end_mark_at:
                return None
            self._end_mark_at = now + self._policy.mark_interval_seconds
            return SendMark(self.current.number, self.current.ended_mark())
        if now < self._send_from:
            return None
        sent = self.current.next(now, limit)
        if isinstance(sent, Train):
            if sent.kind is Kind.SOURCE and sent.consecutive:
                self.totals.source_symbol_count += len(sent.symbols)
            else:
                self.totals.repair_symbol_count += len(sent.symbols)
        elif sent is None and self.current.finished:
            self._end_pass(now)
        return sent

    def wake_at(self, now: float) -> float:
        """Returns when to call `next` again if no input comes before."""
        times = [self._check_silence_at] if self._participants else [now + 1]
        heard = not self.unheard(now)
        if self.phase is Phase.ENDING:
            times.append(self._ended_at + self._policy.pass_grace_seconds)
            if heard:
                times.append(self._end_mark_at)
        elif self.phase is Phase.SENDING and self.current and heard:
            times.append(max(self.current.wake_at(now), self._send_from))
        elif self._wait_until is not None and self._wait_until > now:
            times.append(self._wait_until)
        return max(now, min(times))

    def loaded(self, pass_number: int, window: int, symbol_count: int | None = None) -> None:
        """Note that the first `symbol_count` source symbols of a window are in memory, or all."""
        if self.current and self.current.number == pass_number:
            self.current.loaded(window, symbol_count)

    def encoded(self, pass_number: int, window: int) -> None:
        """Note that a window's parity is in memory."""
        if self.current and self.current.number == pass_number:
            self.current.encoded(window)

    # Receivers

    def _fits(self, join: Join) -> bool:
        """Returns whether the receiver can take windows and datagrams of this geometry."""
        return (
            join.window_memory_bytes >= 2 * self.geometry.window_bytes
            and join.max_payload_bytes >= datagram_bytes(self.geometry.symbol_bytes)
            and (not self.geometry.codec or self.geometry.codec in join.codecs)
        )

    def _hear(self, seat: int, now: float) -> Participant | None:
        participant = self._participants.get(seat)
        if participant:
            participant.heard_at = self._heard_at = now
        return participant

    def _remove(self, seat: int) -> None:
        participant = self._participants.pop(seat, None)
        if not participant:
            return
        if self.phase is Phase.ENDING and self._is_awaited(participant):
            self._awaited -= 1
        self._needs_changed = True
        self._needs.remove(seat)
        self._sort_in(participant)

    def _is_awaited(self, participant: Participant) -> bool:
        return not participant.unicast and participant.ready and not self._needs.counted(participant.seat)

    def _give_up(self, participant: Participant) -> None:
        if participant.unicast:
            left = f"{participant.lacking_bytes} bytes"
            self.dismiss(
                participant.seat, f"{participant.stuck_count} offers in a row brought nothing, {left} are missing"
            )
        else:
            participant.stuck_count = 0
            self.move_to_unicast(participant.seat)

    def _sort_in(self, participant: Participant) -> None:
        """Keep the sets of those that lack something and of those that take the multicast up to date."""
        seat, here = participant.seat, participant.seat in self._participants
        if here and participant.lacking_bytes:
            self._lacking.add(seat)
        else:
            self._lacking.discard(seat)
        if seat in self._lacking and participant.ready and not participant.unicast:
            self._members.add(seat)
        else:
            self._members.discard(seat)
        if self.current:
            self.current.members = max(1, len(self._members))

    def _tell(self, seat: int, told: Told) -> None:
        self._told.append((seat, told))

    def _offer_alone(self, participant: Participant) -> None:
        """Offer a receiver that takes no multicast what it lacks, a slice at a time."""
        if participant.unicast and participant.ready and not participant.offered and participant.lacking_bytes:
            self._offer(participant, self._needs.lacking(participant.seat))

    def _offer(self, participant: Participant, chunks: NDArray[np.bool_]) -> None:
        participant.offered = True
        self._tell(participant.seat, Offered(self._needs.first_bytes(chunks, self._policy.unicast_slice_bytes)))

    # Time

    def _tick(self, now: float) -> None:
        if now >= self._check_silence_at:
            self._check_silence_at = now + min(0.5, self._policy.silence_seconds / 4)
            self._forget_silent(now)
        if self.phase is Phase.IDLE:
            self._start_if_due(now)
        elif self.phase is Phase.SENDING:
            if self._needs_changed and not self._needs.counts.any():
                self._abandon(now)
            self._needs_changed = False
        elif self.phase is Phase.ENDING and (
            self._awaited <= 0 or now >= self._ended_at + self._policy.pass_grace_seconds
        ):
            self._close_pass(now)

    def _forget_silent(self, now: float) -> None:
        limit = self._policy.silence_seconds
        for participant in [p for p in self._participants.values() if now - p.heard_at > limit]:
            reason = f"nothing was heard from this machine for {limit:g} s"
            self._tell(participant.seat, Dismissed(reason, forgotten=True))
            self._remove(participant.seat)
        patience = self._policy.answer_seconds
        for participant in list(self._participants.values()):
            if participant.asked_at is not None and now - participant.asked_at > patience:
                # What it lacks is not known: it is offered all that it lacked before.
                participant.asked_at = None
                self.move_to_unicast(participant.seat)
                self._offer_alone(participant)
        for machine in [name for name, until in self._expected.items() if until < now]:
            del self._expected[machine]

    def _abandon(self, now: float) -> None:
        assert self.current  # noqa: S101 - only while sending
        self.current.abandon()
        self._end_pass(now)

    # Passes

    def _start_if_due(self, now: float) -> None:
        if not self._needs.counts.any():
            self._wait_until = None
            return
        if self._wait_until is None:
            self._wait_until = now + self._policy.start_grace_seconds
        members = [p for p in self._participants.values() if not p.unicast]
        if (self._expected or any(not p.ready for p in members)) and now < self._wait_until:
            return
        if any(p.ready and p.lacking_bytes and not p.offered for p in members):
            self._plan(members, now)

    def _plan(self, members: list[Participant], now: float) -> None:
        """Decide what goes by unicast and what the next pass sends."""
        counts = self._needs.counts
        for participant in members:
            if participant.offered:
                counts = counts - self._needs.lacking(participant.seat)
        few = (counts > 0) & (counts <= self._policy.unicast_receiver_count)
        if int((self._sizes * counts).sum()) <= self._policy.unicast_total_bytes * bool(
            self._policy.unicast_receiver_count
        ):
            few = counts > 0
        chunks = (counts > 0) & ~few
        if few.any():
            for participant in members:
                own = few & self._needs.lacking(participant.seat)
                if participant.ready and not participant.offered and own.any():
                    self._offer(participant, own)
        if chunks.any():
            self._begin_pass(chunks, now)

    def _begin_pass(self, chunks: NDArray[np.bool_], now: float) -> None:
        # 65,535 passes of one transmission would take weeks; the number wraps rather than end the transmission.
        self._pass_number = self._pass_number % MAX_PASS_NUMBER + 1
        self._wait_until = None
        layout = PassLayout(self.geometry, np.flatnonzero(chunks), self._sizes)
        self.layouts = {self._pass_number: layout}

        def needed(positions: range) -> bool:
            return bool(self._needs.counts[layout.chunks[positions.start : positions.stop]].any())

        self.current = Pass(
            self._pass_number, layout, self._policy, prediction=self.prediction, slots=self._slots, needed=needed
        )
        self.phase = Phase.SENDING
        lead = self._policy.lead_seconds + self._policy.lead_seconds_per_receiver * len(self._participants)
        self._send_from = now + lead
        self.current.members = max(1, len(self._members))
        self.prediction.begin(self.current.members)
        self.totals.chunk_count += len(layout.chunks)
        self.totals.pass_count += 1
        self.totals.window_count += layout.window_count
        plan = self._plan_of(self.current)
        for participant in self._participants.values():
            if not participant.unicast:
                self._tell(participant.seat, plan)

    def _plan_of(self, running: Pass) -> Planned:
        chunks = np.zeros(len(self._sizes), np.bool_)
        chunks[running.layout.chunks] = True
        return Planned(running.number, chunks)

    def _end_pass(self, now: float) -> None:
        """Ask everybody what he holds: what was known before the pass counts no longer."""
        assert self.current  # noqa: S101 - only while sending
        self.totals.report_count += self.current.report_count
        self.phase = Phase.ENDING
        self._ended_at = self._end_mark_at = now
        self._awaited = 0
        for participant in self._participants.values():
            if participant.unicast:
                continue
            self._tell(participant.seat, PassEnded(self._pass_number))
            if participant.ready and participant.lacking_bytes:
                self._needs.uncount(participant.seat)
                participant.asked_at = now
                self._awaited += 1

    def _close_pass(self, now: float) -> None:
        """Go on with what is known; who has not answered counts again as soon as he does."""
        self.phase = Phase.IDLE
        self.current = None
        self._wait_until = now + self._policy.pass_grace_seconds
        self._start_if_due(now)
