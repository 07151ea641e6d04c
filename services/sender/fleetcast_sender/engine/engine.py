"""The transmission's state machine: when passes begin and end, what they send, what goes by unicast.

Pure: events and `now` come in, trains and messages go out. It never waits for anyone: a receiver's silence, lag or
death changes what is sent next, not when the others are served.
"""

from collections.abc import Sequence
from enum import Enum

import numpy as np
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.packet import Kind
from numpy.typing import NDArray

from fleetcast_sender.engine.messages import Deficits, Dismissed, Holding, Join, PassEnded, Planned, Told
from fleetcast_sender.engine.passes import Pass, SendMark, Train, WorkItem
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.receivers import Receivers
from fleetcast_sender.engine.repair import ParityPrediction
from fleetcast_sender.engine.roster import Participant, Totals

MAX_PASS_NUMBER = 0xFFFF


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
        self._receivers = Receivers(geometry, stored_size_bytes, policy)
        self._needs = self._receivers.needs
        self._slots = window_slots
        self._wait_until: float | None = None
        self._send_from = 0.0
        self._ended_at = 0.0
        self._end_mark_at = 0.0
        self._check_silence_at = 0.0
        self._pass_number = 0

    # Inputs

    def expect(self, machines: Sequence[str], now: float) -> None:
        """Note that these machines were admitted: the first pass waits for them a little."""
        self._receivers.expect(machines, now + self._policy.start_grace_seconds)

    def join(self, seat: int, join: Join, now: float) -> None:
        """Let a receiver in; `seat` is new for every stream."""
        participant = self._receivers.add(seat, join, now)
        if self.current and self.phase is Phase.SENDING and not participant.unicast:
            self._receivers.tell(seat, self._plan_of(self.current))
        self._sort_in(participant)

    def ready(self, seat: int, now: float) -> None:
        """Note that the receiver hears the group, or is ready to fetch."""
        if participant := self._receivers.hear(seat, now):
            participant.ready = True
            self._sort_in(participant)
            self._receivers.offer_alone(participant)

    def heard(self, seat: int, now: float) -> None:
        """Note that the receiver lives."""
        self._receivers.hear(seat, now)

    def deficits(self, seat: int, report: Deficits, now: float) -> None:
        """Take a report on one window.

        Raises:
            RunsError: the report does not fit the window.
        """
        if (participant := self._receivers.hear(seat, now)) and self.current and not participant.unicast:
            self.current.deficits(report, now)

    def holding(self, seat: int, holding: Holding, now: float) -> None:
        """Take everything that a receiver holds."""
        participant = self._receivers.hear(seat, now)
        if not participant:
            return
        before = participant.lacking_bytes
        self._receivers.put(participant, holding.held)
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
            self._receivers.awaited.discard(seat)
            self._needs.count(seat)
        if fresh:
            participant.asked_at = None
        self._receivers.offer_alone(participant)

    def done(self, seat: int, now: float) -> None:
        """Note that the receiver lacks nothing any more."""
        if participant := self._receivers.hear(seat, now):
            self._receivers.awaited.discard(seat)
            self._receivers.put_all(participant)
            self._needs.count(seat)
            participant.offered = False
            participant.asked_at = None
            self._sort_in(participant)

    def leave(self, seat: int, now: float) -> None:
        """Note that the receiver's stream ended."""
        self._remove(seat)

    def dismiss(self, seat: int, reason: str) -> None:
        """Take a receiver out and tell it why."""
        if self._receivers.get(seat):
            self._receivers.tell(seat, Dismissed(reason))
            self._remove(seat)

    def move_to_unicast(self, seat: int) -> None:
        """Serve a receiver apart from the group from now on."""
        participant = self._receivers.get(seat)
        if participant and not participant.unicast:
            participant.unicast = True
            self._receivers.awaited.discard(seat)
            self._receivers.needs_changed = True
            self._needs.uncount(seat)
            self._sort_in(participant)
            if self.phase is Phase.SENDING and participant.ready and participant.asked_at is None:
                # The pass is over for it. What it got of it, it says, and is offered the rest.
                participant.asked_at = self._receivers.heard_at
                self._receivers.tell(seat, PassEnded(self._pass_number))
            else:
                self._receivers.offer_alone(participant)

    # Outputs

    @property
    def report_interval_seconds(self) -> float:
        """How often receivers are to report."""
        return self._receivers.report_interval_seconds

    @property
    def participant_count(self) -> int:
        """Receivers that are heard."""
        return len(self._receivers)

    @property
    def member_count(self) -> int:
        """Receivers that take the multicast and lack something."""
        return len(self._receivers.members)

    @property
    def lacking(self) -> bool:
        """Whether a receiver that is heard lacks anything."""
        return bool(self._receivers.lacking)

    @property
    def pass_number(self) -> int:
        """Number of the running or the last pass; 0 before the first."""
        return self._pass_number

    def unheard(self, now: float) -> bool:
        """Returns whether no receiver was heard for so long that nothing more is sent until one is."""
        return self._receivers.unheard(now)

    def take_told(self) -> list[tuple[int, Told]]:
        """Returns the messages to receivers since the last call, by seat."""
        return self._receivers.take_told()

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

    def wait(self, now: float) -> None:
        """Let time pass and send nothing, as when nobody hears the group: who is silent is forgotten all the same."""
        self._tick(now)

    def wake_at(self, now: float) -> float:
        """Returns when to call `next` again if no input comes before."""
        times = [self._check_silence_at] if len(self._receivers) else [now + 1]
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

    def _remove(self, seat: int) -> None:
        self._receivers.remove(seat)
        self._count_members()

    def _sort_in(self, participant: Participant) -> None:
        self._receivers.sort_in(participant)
        self._count_members()

    def _count_members(self) -> None:
        if self.current:
            self.current.members = max(1, self.member_count)

    def _give_up(self, participant: Participant) -> None:
        if participant.unicast:
            left = f"{participant.lacking_bytes} bytes"
            self.dismiss(
                participant.seat, f"{participant.stuck_count} offers in a row brought nothing, {left} are missing"
            )
        else:
            participant.stuck_count = 0
            self.move_to_unicast(participant.seat)

    # Time

    def _tick(self, now: float) -> None:
        if now >= self._check_silence_at:
            self._check_silence_at = now + min(0.5, self._policy.silence_seconds / 4)
            self._forget_silent(now)
        if self.phase is Phase.IDLE:
            self._start_if_due(now)
        elif self.phase is Phase.SENDING:
            if self._receivers.needs_changed and not self._needs.counts.any():
                self._abandon(now)
            self._receivers.needs_changed = False
        elif self.phase is Phase.ENDING and (
            not self._receivers.awaited or now >= self._ended_at + self._policy.pass_grace_seconds
        ):
            self._close_pass(now)

    def _forget_silent(self, now: float) -> None:
        self._receivers.forget_silent(now)
        self._count_members()
        patience = self._policy.answer_seconds
        for participant in self._receivers:
            if participant.asked_at is not None and now - participant.asked_at > patience:
                # What it lacks is not known: it is offered all that it lacked before.
                participant.asked_at = None
                self.move_to_unicast(participant.seat)
                self._receivers.offer_alone(participant)

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
        members = self._receivers.group
        if (self._receivers.expecting or any(not p.ready for p in members)) and now < self._wait_until:
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
                    self._receivers.offer(participant, own)
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
        lead = self._policy.lead_seconds + self._policy.lead_seconds_per_receiver * len(self._receivers)
        self._send_from = now + lead
        self.current.members = max(1, self.member_count)
        self.prediction.begin(self.current.members)
        self.totals.chunk_count += len(layout.chunks)
        self.totals.pass_count += 1
        self.totals.window_count += layout.window_count
        plan = self._plan_of(self.current)
        for participant in self._receivers.group:
            self._receivers.tell(participant.seat, plan)

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
        self._receivers.awaited.clear()
        for participant in self._receivers.group:
            self._receivers.tell(participant.seat, PassEnded(self._pass_number))
            if participant.ready and participant.lacking_bytes:
                self._needs.uncount(participant.seat)
                participant.asked_at = now
                self._receivers.awaited.add(participant.seat)

    def _close_pass(self, now: float) -> None:
        """Go on with what is known; who has not answered counts again as soon as he does."""
        self.phase = Phase.IDLE
        self.current = None
        self._wait_until = now + self._policy.pass_grace_seconds
        self._start_if_due(now)
