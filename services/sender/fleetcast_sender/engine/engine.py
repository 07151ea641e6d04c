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

from fleetcast_sender.engine import planning
from fleetcast_sender.engine.messages import (
    Deficits,
    Dismissed,
    Holding,
    Join,
    PassEnded,
    Planned,
    Told,
    UnicastReason,
)
from fleetcast_sender.engine.passes import Pass, SendMark, Train, WorkItem
from fleetcast_sender.engine.planning import NextPass, Slices
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.engine.receivers import Receivers
from fleetcast_sender.engine.repair import ParityPrediction
from fleetcast_sender.engine.roster import Participant, Totals

MAX_PASS_NUMBER = 0xFFFF
_STANDSTILL_SECONDS = 1.0
"""The caller comes at least every half a second while there are receivers: if not, it was stopped itself."""


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
        self._ready_until = 0.0
        self._send_from = 0.0
        self._ended_at = 0.0
        self._end_mark_at = 0.0
        self._check_silence_at = 0.0
        self._pass_number = 0
        self._position: int | None = None
        self._offers_until: float | None = None
        self._ticked_at: float | None = None

    # Inputs

    def expect(self, machines: Sequence[str], now: float) -> None:
        """Note that these machines were admitted: the first pass waits for them a little."""
        self._receivers.expect(machines, now + self._policy.start_grace_seconds)

    def join(self, seat: int, join: Join, now: float) -> None:
        """Let a receiver in; `seat` is new for every stream."""
        participant = self._receivers.add(seat, join, now)
        if self.current and self.phase is Phase.SENDING and not participant.unicast:
            self._receivers.tell(seat, self._plan_of(self.current))
        self._count_members()

    def ready(self, seat: int, now: float) -> None:
        """Note that the receiver hears the group, or is ready to fetch."""
        if participant := self._receivers.hear(seat, now):
            self._receivers.make_ready(participant)
            self._count_members()
            self._receivers.offer_apart(participant, now)

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
        self._count_members()
        fresh = self.phase is not Phase.ENDING or holding.pass_number >= self._pass_number
        answers_pass = fresh and participant.asked_at is not None
        # The answer to the end of a pass does not mean that an offer which is still being fetched has failed.
        answers_offer = self._receivers.end_offers(participant, now, failed=not answers_pass)
        if answers_pass:
            self._note_answer(participant, now)
        if answers_offer or (answers_pass and participant.served_pass == self._pass_number):
            progressed = participant.lacking_bytes < before or not participant.lacking_bytes
            participant.stuck_count = 0 if progressed else participant.stuck_count + 1
            if participant.stuck_count >= self._policy.stuck_offer_count:
                self._give_up(participant)
                return
        if participant.apart is UnicastReason.NO_ANSWER:
            participant.return_at = now
            if self.phase is Phase.IDLE:
                return
        self._receivers.offer_apart(participant, now)

    def done(self, seat: int, now: float) -> None:
        """Note that the receiver lacks nothing any more."""
        if participant := self._receivers.hear(seat, now):
            self._receivers.put_all(participant)
            self._receivers.end_offers(participant, now, failed=False)
            self._note_answer(participant, now)
            self._count_members()

    def leave(self, seat: int, now: float) -> None:
        """Note that the receiver's stream ended."""
        self._remove(seat)

    def dismiss(self, seat: int, reason: str) -> None:
        """Take a receiver out and tell it why."""
        if self._receivers.get(seat):
            self._receivers.tell(seat, Dismissed(reason))
            self._remove(seat)

    def move_to_unicast(self, seat: int, reason: UnicastReason = UnicastReason.SLOW) -> None:
        """Serve a receiver apart from the group from now on; it returns after a while if the reason may pass."""
        participant, now = self._receivers.get(seat), self._receivers.heard_at
        if not participant or participant.unicast:
            return
        self._receivers.leave_group(participant, reason, now)
        self._count_members()
        if self.phase is Phase.SENDING and participant.ready and participant.asked_at is None:
            # The pass is over for it. What it got of it, it says, and is offered the rest.
            participant.asked_at = now
            self._receivers.tell(seat, PassEnded(self._pass_number))
        else:
            self._receivers.offer_apart(participant, now)

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

    def take_returned(self) -> list[tuple[int, Join]]:
        """Returns the receivers that came back to the group since the last call: they bound its rate again."""
        return self._receivers.take_returned()

    def unicast_machines(self) -> dict[UnicastReason, list[str]]:
        """Returns the machines that are served by unicast now, by the reason."""
        return self._receivers.unicast_machines()

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
        else:
            times += [
                at for at in (self._wait_until, self._ready_until, self._offers_until) if at is not None and at > now
            ]
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

    def _count_members(self) -> None:
        if self.current:
            self.current.members = max(1, self.member_count)

    def _note_answer(self, participant: Participant, now: float) -> None:
        """Note that a receiver has said what it holds after a pass: its needs are known again."""
        participant.asked_at = None
        self._receivers.awaited.discard(participant.seat)
        if not participant.unicast:
            self._needs.count(participant.seat)

    def _give_up(self, participant: Participant) -> None:
        if participant.unicast:
            left = f"{participant.lacking_bytes} bytes"
            self.dismiss(
                participant.seat, f"{participant.stuck_count} offers in a row brought nothing, {left} are missing"
            )
        else:
            participant.stuck_count = 0
            self.move_to_unicast(participant.seat, UnicastReason.NO_PROGRESS)

    # Time

    def _tick(self, now: float) -> None:
        self._leave_out_standstill(now)
        if now >= self._check_silence_at:
            self._check_silence_at = now + min(0.5, self._policy.silence_seconds / 4)
            self._forget_silent(now)
        if self.phase is Phase.IDLE:
            self._receivers.return_due(now)
            self._start_if_due(now)
        elif self.phase is Phase.SENDING:
            if self._receivers.needs_changed and not self._needs.counts.any():
                self._abandon(now)
            self._receivers.needs_changed = False
        elif self.phase is Phase.ENDING and (
            not self._receivers.awaited or now >= self._ended_at + self._policy.pass_grace_seconds
        ):
            self._close_pass(now)

    def _leave_out_standstill(self, now: float) -> None:
        """Leave out of every account a time in which nobody called, as when the sender's host was stopped."""
        last, self._ticked_at = self._ticked_at, now
        if last is None or not len(self._receivers) or now - last < _STANDSTILL_SECONDS:
            return
        self._receivers.postpone(now - last, now)
        self._ended_at += now - last
        if self._wait_until is not None:
            self._wait_until += now - last
            self._ready_until += now - last
        if self.current:
            self.current.postpone(now - last)

    def _forget_silent(self, now: float) -> None:
        self._receivers.forget_silent(now)
        self._count_members()
        patience = self._policy.answer_seconds
        for participant in self._receivers:
            if participant.asked_at is not None and now - participant.asked_at > patience:
                # What it lacks is not known: it is offered all that it lacked before.
                participant.asked_at = None
                self.move_to_unicast(participant.seat, UnicastReason.NO_ANSWER)
                self._receivers.offer_apart(participant, now)

    def _abandon(self, now: float) -> None:
        assert self.current  # noqa: S101 - only while sending
        self.current.abandon()
        self._end_pass(now)

    # Passes

    def _start_if_due(self, now: float) -> None:
        receivers = self._receivers
        if not receivers.members:
            self._wait_until = None
            return
        if self._wait_until is None:
            self._wait_until = now + self._policy.start_grace_seconds
            self._ready_until = now + self._policy.ready_grace_seconds
        if (now < self._wait_until and receivers.expecting) or (now < self._ready_until and receivers.unready):
            return
        following = planning.plan(
            receivers,
            self._sizes,
            self._policy,
            now,
            position=self._position,
            window_bytes=self.geometry.window_bytes,
        )
        match following:
            case Slices(members, reason):
                for participant in members:
                    self._offer(participant, reason, now)
            case NextPass():
                self._offers_until = following.not_before
                if now < following.not_before:
                    return
                for participant in following.receivers:
                    participant.served_pass = self._pass_number % MAX_PASS_NUMBER + 1
                self._begin_pass(following.chunks, now)

    def _offer(self, participant: Participant, reason: UnicastReason, now: float) -> None:
        """Offer a member of the group the next slice that it lacks."""
        start = planning.first_position(self._needs.counts) if self._position is None else self._position
        offered = self._receivers.offer(participant, reason, now, start=start)
        self._position = planning.position_after(offered, start)

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
        self.totals.chunk_count += int(np.count_nonzero(self._needs.counts[layout.chunks]))
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
        self._position = self.current.next_chunk
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
        self._ready_until = now + self._policy.ready_grace_seconds
        self._start_if_due(now)
