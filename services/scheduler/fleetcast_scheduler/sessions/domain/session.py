"""A session: the sending of one image version to the machines that join."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy
from fleetcast_scheduler.senders.domain.timing import SenderTiming
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules, LatePolicy
from fleetcast_scheduler.sessions.domain.participant import Joiner, Participant, ParticipantState
from fleetcast_scheduler.sessions.domain.series import Series
from fleetcast_scheduler.sessions.domain.start_rules import PresentMachines, StartRules


class SessionState(StrEnum):
    """Where a session is in its life."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    IDLE = "IDLE"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        """True when it never runs again."""
        return self in _FINAL


_FINAL = frozenset({SessionState.COMPLETED, SessionState.CANCELLED, SessionState.FAILED})


class SessionMode(StrEnum):
    """What opened a session."""

    AUTO = "AUTO"
    SCHEDULED = "SCHEDULED"


@dataclass(frozen=True, slots=True)
class Timing(SenderTiming):
    """Time limits of sessions, in seconds."""

    idle: float = 600.0
    """A session that nobody needs completes after this."""
    lost: float = 60.0
    """A lost machine keeps its session running for this long."""
    notice: float = 1.0
    """Waiting machines hear of changes no more often than this."""
    retry: float = 1.0
    """First pause after a transmission that failed; doubles with each failure."""
    forget: float = 300.0
    """An ended session stays in memory for this long."""


STEADY_SECONDS = 60.0
"""A transmission that failed after so long does not count as failed in a row."""

MAX_FAILURES = 6
"""A session fails after so many transmissions in a row failed: pauses of 1+2+4+8+16 s, half a minute in all."""


@dataclass(slots=True, kw_only=True)
class Session:
    """The sending of one image version to the machines that join."""

    name: str
    image: str
    """The pinned version, `images/{image}@sha256:{hex}`."""
    image_size_bytes: int
    mode: SessionMode
    create_time: float
    rules: StartRules = field(default_factory=StartRules)
    rate: RatePolicy = field(default_factory=RatePolicy)
    admission: AdmissionRules = field(default_factory=AdmissionRules)
    slow_policy: SlowPolicy = field(default_factory=SlowPolicy)
    priority: int = 0
    site: str = ""
    """Only senders of this site serve it, unless `any_site`; empty for those of any site."""
    any_site: bool = False
    """Senders of the site only come first."""
    deployment: str = ""
    """The deployment that it carries the image for, `deployments/{id}`; empty for none."""
    collection: str = ""
    """The collection whose machines are awaited, `collections/{id}`; empty for none."""
    series: Series | None = None
    """How it recurs; None for not."""
    closed: bool = False
    """It admits only machines that have joined before."""
    run: int = 0
    """How often its start rules have been met."""
    traceparent: str = ""
    request_id: str = ""
    state: SessionState = SessionState.WAITING
    waiting_reason: str = ""
    error: str = ""
    start_time: float | None = None
    end_time: float | None = None
    first_join_time: float | None = None
    last_join_time: float | None = None
    lost_time: float | None = None
    """When a machine was last lost."""
    idle_time: float | None = None
    """Since when nobody needs anything; None unless IDLE."""
    transmission: str = ""
    """The present transmission, `sessions/{session}/transmissions/{id}`; empty when none."""
    transmission_count: int = 0
    failure_count: int = 0
    """Transmissions in a row that failed."""
    retry_time: float | None = None
    """No new transmission before this."""
    start_requested: bool = False
    """An operator started it: the start rules no longer matter."""
    hold_released: bool = False
    revision: int = 0
    edit_count: int = 0
    participants: dict[str, Participant] = field(default_factory=dict)
    """By machine, in the order of joining."""
    counts: Counter[ParticipantState] = field(default_factory=Counter)
    """Participants in each state."""
    starved: bool = False
    """It would send if a sender took it. Not stored."""
    avoided_sender: str = ""
    """The sender that failed it last. Not stored."""
    wake_time: float | None = None
    """When to look at it again, if nothing happens before. Not stored."""
    notice_time: float = 0.0
    """When the waiting machines were last told. Not stored."""
    notice: tuple[str, int, int] = ("", 0, 0)
    """What they were told: reason, machines, machines that wait. Not stored."""
    expected: dict[str, str] = field(default_factory=dict)
    """The machines that are awaited, those that joined included, with the names for display. Not stored."""
    newcomers: dict[str, None] = field(default_factory=dict)
    """Machines that have not been told anything since they joined. Not stored."""
    queue: dict[str, None] = field(default_factory=dict)
    """Machines in WAITING, those that have received before first, then in the order of joining. Not stored."""

    @property
    def present_machines(self) -> PresentMachines:
        """How many machines are there, and since when."""
        return PresentMachines(self.present_count, self.first_join_time, self.last_join_time)

    @property
    def present_count(self) -> int:
        """Participants that are connected."""
        return self.counts[ParticipantState.WAITING] + self.counts[ParticipantState.RECEIVING]

    @property
    def open_count(self) -> int:
        """Participants that have not ended."""
        return self.present_count + self.counts[ParticipantState.LOST]

    @property
    def participant_count(self) -> int:
        """Participants in every state."""
        return self.counts.total()

    @property
    def succeeded_count(self) -> int:
        """Participants that have the verified image."""
        return self.counts[ParticipantState.SUCCEEDED]

    @property
    def failed_count(self) -> int:
        """Participants that ended without the verified image."""
        return self.counts[ParticipantState.FAILED] + self.counts[ParticipantState.DISMISSED]

    @property
    def complete(self) -> bool:
        """True when every participant ended and nobody else is awaited."""
        if self.open_count:
            return False
        if self.deployment:
            return self.closed or not self.missing
        if self.collection:
            return self.closed or (bool(self.expected) and not self.missing)
        expected = self.rules.min_clients if self.mode is SessionMode.SCHEDULED else 0
        return self.closed or (bool(expected) and len(self.participants) >= expected)

    @property
    def missing(self) -> list[str]:
        """The awaited machines that have not joined."""
        return [machine for machine in self.expected if machine not in self.participants]

    @property
    def effective_rules(self) -> StartRules:
        """The start rules that count now: a session does not wait for more machines than can come."""
        if self.closed:
            return replace(self.rules, min_clients=0)
        if self.deployment:
            return replace(self.rules, min_clients=min(self.rules.min_clients, len(self.expected)))
        return self.rules

    @property
    def refuses_late(self) -> bool:
        """True when it started and takes no machine that comes late."""
        return self.state is not SessionState.WAITING and self.admission.late_policy is LatePolicy.REFUSE

    def lost_until(self, timing: Timing) -> float:
        """Returns until when lost machines keep the session running."""
        if self.lost_time is None or not self.counts[ParticipantState.LOST]:
            return 0.0
        return self.lost_time + timing.lost

    def successor(self, now: float) -> Session | None:
        """Returns the session's next occurrence, which waits for its time; None if there is none."""
        due_time = None if self.series is None else self.series.due(now)
        if self.series is None or due_time is None:
            return None
        number = self.series.occurrence
        return Session(
            name=f"{self.name.removesuffix(f'-{number}') if number > 1 else self.name}-{number + 1}",
            image=self.image,
            image_size_bytes=self.image_size_bytes,
            mode=self.mode,
            create_time=now,
            rules=replace(self.rules, start_time=due_time),
            rate=self.rate,
            admission=replace(self.admission, until_time=self.series.until(due_time)),
            slow_policy=self.slow_policy,
            priority=self.priority,
            site=self.site,
            any_site=self.any_site,
            deployment=self.deployment,
            collection=self.collection,
            expected=dict(self.expected),
            series=replace(self.series.after(due_time), occurrence=number + 1, missed_count=0),
        )

    def miss(self, now: float) -> None:
        """Takes the next occurrence's time and end: this one has not started when the next was due."""
        due_time = None if self.series is None else self.series.due(now)
        if self.series is not None and due_time is not None:
            self.rules = replace(self.rules, start_time=due_time)
            self.admission = replace(self.admission, until_time=self.series.until(due_time))
            self.series = replace(self.series.after(due_time), missed_count=self.series.missed_count + 1)

    def restore(self, participant: Participant) -> None:
        """Puts a stored participant back."""
        self.participants[participant.machine] = participant
        self.counts[participant.state] += 1

    def touch(self, participant: Participant | None = None) -> None:
        """Counts a change of the session, and of one participant."""
        self.revision += 1
        if participant is not None:
            participant.revision = self.revision

    def enqueue(self, joiner: Joiner, now: float) -> Participant:
        """Returns the participant for a machine that joins, comes back, or starts over; it waits for its place."""
        participant = self.participants.get(joiner.machine)
        if participant is None:
            participant = Participant(
                session=self.name,
                machine=joiner.machine,
                number=len(self.participants) + 1,
                state=ParticipantState.WAITING,
                join_time=now,
                contact_time=now,
            )
            self.restore(participant)
            if self.first_join_time is None:
                self.first_join_time = now
            self.last_join_time = now
        participant.display_name = joiner.display_name
        participant.unicast_only = joiner.unicast_only
        participant.no_multicast_reason = joiner.no_multicast_reason
        participant.address = joiner.address
        participant.hardware = joiner.hardware
        self.newcomers[joiner.machine] = None
        self.move(participant, ParticipantState.WAITING, now)
        if participant.run and participant.run == self.run:
            self.queue = {joiner.machine: None, **self.queue}
        return participant

    def promotable(self) -> list[str]:
        """Returns the machines that wait and may receive now, in their order."""
        most = self.admission.max_participants
        place_count = most - self.counts[ParticipantState.RECEIVING] if most else len(self.queue)
        machines = list(self.queue)[: max(place_count, 0)]
        if self.state is SessionState.WAITING or self.admission.late_policy is not LatePolicy.NEXT_RUN:
            return machines
        return [machine for machine in machines if self.participants[machine].run == self.run]

    def promote(self, machine: str, now: float) -> Participant:
        """Lets a machine that waits receive, in the present run."""
        participant = self.participants[machine]
        participant.run = self.run
        self.move(participant, ParticipantState.RECEIVING, now)
        return participant

    def begin_again(self) -> None:
        """The run is over and machines wait for the next: the start rules count again, for them."""
        waiting = [self.participants[machine].join_time for machine in self.queue]
        self.state, self.start_requested = SessionState.WAITING, False
        self.first_join_time, self.last_join_time = min(waiting), max(waiting)

    def move(self, participant: Participant, state: ParticipantState, now: float, error: str = "") -> None:
        """Puts a participant in a state."""
        self.counts[participant.state] -= 1
        self.counts[state] += 1
        participant.state = state
        if state is ParticipantState.WAITING:
            self.queue[participant.machine] = None
        else:
            self.queue.pop(participant.machine, None)
        participant.error = error
        participant.end_time = now if state.final else None
        if not state.final:
            participant.contact_time = participant.contact_time if state is ParticipantState.LOST else now
        if state is ParticipantState.LOST:
            self.lost_time = now
        if state is not ParticipantState.RECEIVING:
            participant.rate_bytes_per_second = 0.0
        self.touch(participant)

    def machines(self, state: ParticipantState) -> list[str]:
        """Returns the machines in one state, in the order of joining."""
        return [machine for machine, participant in self.participants.items() if participant.state is state]
