"""The loop around the rules: it stores what they decided and then, not before, does what follows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from fleetcast_kit.errors import AbortedError, UnavailableError
from fleetcast_kit.process import semconv, telemetry
from opentelemetry import trace

from fleetcast_scheduler.loop.cycle import Cycle, Turn
from fleetcast_scheduler.senders.domain.commands import (
    AdmitParticipants,
    CommandIssued,
    StartTransmission,
    WakeMachines,
)
from fleetcast_scheduler.senders.domain.pool import SenderPool
from fleetcast_scheduler.senders.domain.sender import Registration
from fleetcast_scheduler.senders.domain.transmission import ReportState, TransmissionReport
from fleetcast_scheduler.senders.streams import SenderStream
from fleetcast_scheduler.sessions.domain.dispatcher import Dispatcher
from fleetcast_scheduler.sessions.domain.events import (
    Assignment,
    Event,
    MachinesNotified,
    SessionEnded,
    SessionOpened,
    SessionStarted,
)
from fleetcast_scheduler.sessions.domain.participant import Joiner
from fleetcast_scheduler.sessions.mailbox import SessionMailbox
from fleetcast_scheduler.sessions.rows import participant_row, sender_row, session_row, transmission_row
from fleetcast_scheduler.sessions.store import Batch, Store

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)


class Pump(Cycle[Event]):
    """Runs the dispatcher: a turn decides, stores in one transaction, then tells machines and senders."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        *,
        holds_changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.dispatcher = dispatcher
        self._store = store
        self._holds_changed = holds_changed
        self._mailboxes: dict[tuple[str, str], SessionMailbox] = {}
        self._senders: dict[str, SenderStream] = {}

    # Machines

    def join(self, session: str, joiner: Joiner) -> SessionMailbox:
        """A machine joins with a new stream; an older one of the same machine in the session ends.

        Raises:
            FailedPreconditionError: see Dispatcher.join.
        """
        self.dispatcher.join(session, joiner, self.clock())
        mailbox = SessionMailbox(session, joiner.machine)
        older = self._mailboxes.get((session, joiner.machine))
        if older is not None:
            older.close(AbortedError(f"{joiner.machine} opened another stream in {session}", reason="STREAM_REPLACED"))
        self._mailboxes[session, joiner.machine] = mailbox
        self.wake()
        return mailbox

    def leave(self, mailbox: SessionMailbox) -> None:
        """A machine's stream ended. Nothing happens if the machine has a newer one."""
        key = (mailbox.session, mailbox.machine)
        if self._mailboxes.get(key) is mailbox:
            del self._mailboxes[key]
            self.dispatcher.leave(*key, self.clock())
            self.wake()

    def remove_machine(self, machine: str, error: str) -> None:
        """A machine was removed or is held, `error` says why: it is taken out of every session."""
        self.dispatcher.remove_machine(machine, error, self.clock())
        self.wake()

    def attached(self, mailbox: SessionMailbox) -> bool:
        """Returns whether the mailbox is that of the machine's present stream."""
        return self._mailboxes.get((mailbox.session, mailbox.machine)) is mailbox

    # Senders

    @property
    def pool(self) -> SenderPool:
        """The senders, as they are now."""
        return self.dispatcher.pool

    def drain_sender(self, name: str, draining: bool) -> None:
        """An operator gives a sender no more sessions, or again some."""
        self.dispatcher.drain_sender(name, draining)

    def connect_sender(self, name: str, registration: Registration, running: Collection[str]) -> SenderStream:
        """A sender opens a stream; an older one of the same sender ends."""
        epoch = self.dispatcher.register_sender(name, registration, running, self.clock())
        older = self._senders.get(name)
        if older is not None:
            self._close_sender(older, AbortedError(f"{name} opened another stream", reason="STREAM_REPLACED"))
        stream = self._senders[name] = SenderStream(name, epoch)
        self.wake()
        _logger.info("%s is connected at %s", name, registration.address)
        return stream

    def disconnect_sender(self, stream: SenderStream) -> None:
        """A sender's stream ended."""
        self._close_sender(stream, None)
        if self._senders.get(stream.sender) is stream:
            del self._senders[stream.sender]
            self.dispatcher.disconnect_sender(stream.sender, stream.epoch, self.clock())
            self.wake()
            _logger.warning("%s is gone", stream.sender)

    def wake_machines(self, mac_addresses: tuple[str, ...]) -> bool:
        """Has every connected sender wake machines; returns whether one is connected."""
        due_time = self.clock() + self.dispatcher.timing.command
        for stream in self._senders.values():
            stream.post(WakeMachines(mac_addresses), due_time, trace.INVALID_SPAN)
        return bool(self._senders)

    def answer_command(self, stream: SenderStream, command_id: int, error: str) -> None:
        """A sender answered a command. Answers to what was never asked are ignored."""
        pending = stream.pending.pop(command_id, None)
        if pending is None or self._senders.get(stream.sender) is not stream:
            return
        if error:
            pending.span.set_status(trace.StatusCode.ERROR, error)
            _logger.warning("%s: %s failed: %s", stream.sender, type(pending.command).__name__, error)
        pending.span.end()
        self.dispatcher.answer_command(stream.sender, pending.command, error, self.clock())
        self.wake()

    def report_transmission(self, stream: SenderStream, report: TransmissionReport) -> None:
        """A sender reported on a transmission."""
        if self._senders.get(stream.sender) is stream:
            self.dispatcher.report_transmission(stream.sender, report, self.clock())
            self.pulse.beat(report.transmission.rpartition("/transmissions/")[0])
            if report.state not in (ReportState.SENDING, ReportState.IDLE):
                self.wake()

    # The loop

    def decide(self, now: float) -> Turn[Event]:
        """Settles sessions and senders. What is collected comes before what is forgotten: the end is stored too."""
        self._expire_commands(now)
        self.dispatcher.settle(now)
        batch, acknowledgements, changed = self._collect(now)
        events = self.dispatcher.take_events()
        self.dispatcher.forget_ended(now)
        return Turn((lambda: self._store.write(batch)) if batch else None, acknowledgements, events, changed)

    def act(self, event: Event, now: float) -> None:
        """Tells machines and senders, and what holds the images of sessions."""
        match event:
            case MachinesNotified(session, machines, message):
                for machine in machines:
                    if addressee := self._mailboxes.get((session, machine)):
                        addressee.post(message)
                if isinstance(message, Assignment):
                    self._warn_of_multicast(message.transmission, len(machines))
            case CommandIssued():
                self._send(event, now)
            case SessionOpened():
                self._begin_trace(event.session)
                self._holds_changed()
            case SessionStarted(session, image, count):
                machines_now = f"{count} machine" + ("s" if count != 1 else "")
                _logger.info("%s (%s) starts with %s", session, image.partition("@")[0], machines_now)
            case SessionEnded():
                ended = self.dispatcher.ledger.sessions.get(event.session)
                state = ended.state.lower() if ended is not None else "over"
                _logger.info("%s (%s) is %s", event.session, event.image.partition("@")[0], state)
                self._holds_changed()

    def _collect(self, now: float) -> tuple[Batch, list[tuple[SessionMailbox, int]], set[str]]:
        """Returns what is new, as rows; the acknowledgements due once it is stored; and the sessions that changed."""
        ledger, pool = self.dispatcher.ledger, self.dispatcher.pool
        changed, ledger.changed_sessions = ledger.changed_sessions, set()
        participants, ledger.changed_participants = ledger.changed_participants, set()
        transmissions, pool.changed = pool.changed, set()
        senders, pool.changed_senders = pool.changed_senders, set()
        if (ledger.reported or pool.reported) and self.reports_due(now):
            participants |= ledger.reported
            transmissions |= pool.reported & pool.transmissions.keys()
            ledger.reported, pool.reported = set(), set()
        batch, acknowledgements = Batch(audit=self.take_audit()), []
        for name in changed:
            if session := ledger.sessions.get(name):
                batch.sessions.append(session_row(session))
        for key in participants:
            if session := ledger.sessions.get(key[0]):
                batch.participants.append(participant_row(session.participants[key[1]]))
                present = self._mailboxes.get(key)
                if present is not None:
                    acknowledgements.append((present, present.received_sequence))
        batch.senders = [sender_row(pool.senders[name]) for name in senders]
        batch.transmissions = [transmission_row(pool.transmissions[name]) for name in transmissions]
        return batch, acknowledgements, changed

    def due_time(self) -> float | None:
        """Returns when a rule has something to decide or a command is late, if nothing happens before."""
        times = [pending.due_time for stream in self._senders.values() for pending in stream.pending.values()]
        if (wake_time := self.dispatcher.wake_time()) is not None:
            times.append(wake_time)
        if self.dispatcher.ledger.reported or self.dispatcher.pool.reported:
            times.append(self._report_time)
        return min(times, default=None)

    def _warn_of_multicast(self, name: str, told_count: int) -> None:
        """Says, with the first machines of a transmission, that its multicast may not reach them."""
        transmission = self.pool.transmissions.get(name)
        if transmission is None or len(transmission.addresses) != told_count:
            return
        if warning := self.pool.multicast_warning(transmission):
            _logger.warning("%s: %s", transmission.session, warning)

    def _send(self, event: CommandIssued, now: float) -> None:
        stream = self._senders.get(event.sender)
        if stream is None or stream.epoch != event.epoch:
            return  # the sender's next registration brings everything in order
        command = event.command
        session = self.dispatcher.ledger.sessions.get(command.transmission.rpartition("/transmissions/")[0])
        name = {StartTransmission: "start transmission", AdmitParticipants: "admit"}.get(type(command))
        span: trace.Span = trace.INVALID_SPAN
        if name is not None and session is not None:
            span = _tracer.start_span(
                name,
                context=telemetry.context_from(session.traceparent),
                attributes={
                    semconv.SESSION: session.name,
                    semconv.TRANSMISSION: command.transmission,
                    semconv.SENDER: event.sender,
                },
            )
            if isinstance(command, StartTransmission):
                with trace.use_span(span, end_on_exit=False):
                    command = replace(command, traceparent=telemetry.current_traceparent())
        stream.post(command, now + self.dispatcher.timing.command, span)

    def _begin_trace(self, name: str) -> None:
        """Gives a session that came by itself a trace of its own."""
        session = self.dispatcher.ledger.sessions[name]
        with _tracer.start_as_current_span("session", attributes={semconv.SESSION: name, semconv.IMAGE: session.image}):
            session.traceparent = telemetry.current_traceparent()
        self.dispatcher.ledger.record(session)
        _logger.info("%s opened for %s, the next of its series", name, session.image)

    def _expire_commands(self, now: float) -> None:
        for stream in list(self._senders.values()):
            late = [pending for pending in stream.pending.values() if now >= pending.due_time]
            if late:
                message = f"{stream.sender} did not answer {type(late[0].command).__name__} in time"
                _logger.warning("%s", message)
                self._close_sender(stream, UnavailableError(message, reason="COMMAND_TIMEOUT"))
                self._senders.pop(stream.sender)
                self.dispatcher.disconnect_sender(stream.sender, stream.epoch, now)

    def _close_sender(self, stream: SenderStream, error: AbortedError | UnavailableError | None) -> None:
        for pending in stream.pending.values():
            pending.span.end()
        stream.pending.clear()
        stream.close(error)
