"""A world for the dispatcher: a clock that is set by hand, senders that answer, machines that listen."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from fleetcast_scheduler.senders.domain.commands import (
    AdmitParticipants,
    Command,
    CommandIssued,
    StartTransmission,
    StopTransmission,
)
from fleetcast_scheduler.senders.domain.sender import Registration, Sender
from fleetcast_scheduler.senders.domain.transmission import Transmission, TransmissionState
from fleetcast_scheduler.sessions.domain.dispatcher import Dispatcher
from fleetcast_scheduler.sessions.domain.events import (
    Assignment,
    Dismissal,
    MachinesNotified,
    SessionEnded,
    SessionOpened,
    Waiting,
)
from fleetcast_scheduler.sessions.domain.participant import Joiner, Participant, ParticipantState, ReceptionTotals
from fleetcast_scheduler.sessions.domain.session import Session, SessionMode, SessionState, Timing
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

IMAGE = "images/win11@sha256:" + "a" * 64
START = 1_800_000_000.0
"""When every story begins: 2027-01-15 08:00 UTC."""


def registration(**changes: object) -> Registration:
    values = {
        "address": "sender:7444",
        "first_group": "239.192.0.0",
        "last_group": "239.192.0.255",
        "first_port": 7500,
        "last_port": 7599,
    }
    return Registration(**values | changes)  # type: ignore[arg-type]


class World:
    """One dispatcher, the disk below it, and everybody around it."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.now = START
        self.timing = timing or Timing()
        self.dispatcher = Dispatcher(self.timing)
        self.disk: tuple[list[Session], list[Sender], list[Transmission]] = ([], [], [])
        self.orders: dict[str, list[Command]] = {}
        """Commands that each sender has not answered."""
        self.running: dict[str, set[str]] = {}
        """What each sender runs."""
        self.known: dict[str, set[str]] = {}
        """Machines that each transmission was told of."""
        self.epochs: dict[str, int] = {}
        self.heard: dict[str, list[Waiting | Assignment | Dismissal]] = {}
        self.ended: list[str] = []
        self.opened: list[str] = []
        """Sessions that came by themselves."""

    # What happens

    def open_session(
        self, rules: StartRules | None = None, *, name: str = "sessions/one", **changes: object
    ) -> Session:
        values = {
            "name": name,
            "image": IMAGE,
            "image_size_bytes": 1000,
            "mode": SessionMode.SCHEDULED,
            "create_time": self.now,
            "rules": rules or StartRules(),
        }
        session = Session(**values | changes)  # type: ignore[arg-type]
        self.dispatcher.add(session)
        self.settle()
        return session

    def connect_sender(self, name: str = "senders/a", **changes: object) -> None:
        running = self.running.setdefault(name, set())
        self.orders[name] = []
        self.epochs[name] = self.dispatcher.register_sender(name, registration(**changes), running, self.now)
        self.settle()

    def disconnect_sender(self, name: str = "senders/a") -> None:
        self.orders[name] = []
        if epoch := self.epochs.pop(name, 0):
            self.dispatcher.disconnect_sender(name, epoch, self.now)
        self.settle()

    def kill_sender(self, name: str = "senders/a") -> None:
        """The sender's process dies: what it ran is gone."""
        self.running[name] = set()
        self.disconnect_sender(name)

    def start(self, name: str = "sessions/one") -> None:
        self.dispatcher.operations.start(self.session(name))
        self.settle()

    def cancel(self, name: str = "sessions/one") -> None:
        self.dispatcher.operations.cancel(self.session(name), self.now)
        self.settle()

    def join(self, *machines: str, session: str = "sessions/one", size: int = -1, address: str = "") -> None:
        for machine in machines:
            joiner = Joiner(machine=machine, target_size_bytes=size, address=address)
            self.dispatcher.join(session, joiner, self.now)
        self.settle()

    def leave(self, machine: str, session: str = "sessions/one") -> None:
        self.dispatcher.leave(session, machine, self.now)
        self.settle()

    def finish(self, *machines: str, session: str = "sessions/one", error: str | None = None) -> None:
        for machine in machines:
            totals = ReceptionTotals(size_bytes=1000, written_bytes=1000)
            self.dispatcher.finish(session, machine, totals, error, self.now)
        self.settle()

    def answer_all(self, error: str = "") -> None:
        """Every sender answers everything, until nothing is left."""
        while any(self.orders.values()):
            for sender in list(self.orders):
                self.answer(sender, error)

    def answer(self, sender: str, error: str = "") -> None:
        commands, self.orders[sender] = self.orders[sender], []
        for command in commands:
            if not error:
                self._carry_out(sender, command)
            self.dispatcher.answer_command(sender, command, error, self.now)
        self.settle()

    def advance(self, seconds: float) -> None:
        """Time passes, and the dispatcher wakes whenever it asked to."""
        end = self.now + seconds
        for _ in range(10_000):
            due = self.dispatcher.wake_time()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.settle()
        else:
            raise AssertionError("the dispatcher wakes again and again for nothing")
        self.now = end
        self.settle()

    def crash(self) -> None:
        """The scheduler is killed: what was stored is all that is left; senders go on."""
        sessions, senders, transmissions = copy.deepcopy(self.disk)
        for session in sessions:
            session.wake_time, session.notice, session.newcomers, session.notice_time = None, ("", 0, 0), {}, 0.0
            session.queue, session.expected = {}, {}
        self.epochs.clear()
        self.orders = {name: [] for name in self.orders}
        self.dispatcher = Dispatcher(
            self.timing,
            sessions=sessions,
            senders=senders,
            transmissions=transmissions,
        )
        for sender in self.dispatcher.pool.senders.values():
            sender.epoch = 0
        for transmission in self.dispatcher.pool.transmissions.values():
            transmission.admissions, transmission.dismissals, transmission.admitting = {}, {}, False
            transmission.moves, transmission.rate = {}, None
        self.dispatcher.recover(self.now)
        self.settle()

    def settle(self) -> None:
        """One cycle: settle, store, act."""
        self.dispatcher.settle(self.now)
        pool = self.dispatcher.pool
        self.disk = copy.deepcopy(
            (
                list(self.dispatcher.ledger.sessions.values()),
                list(pool.senders.values()),
                list(pool.transmissions.values()),
            )
        )
        for event in self.dispatcher.take_events():
            match event:
                case MachinesNotified(_, machines, message):
                    for machine in machines:
                        self._hear(machine, message)
                case CommandIssued(sender, epoch, command):
                    if self.epochs.get(sender, epoch) == epoch:
                        self.orders.setdefault(sender, []).append(command)
                case SessionOpened(name):
                    self.opened.append(name)
                case SessionEnded(name):
                    self.ended.append(name)
                    self.dispatcher.hold_released(name)

    # What is to be seen

    def session(self, name: str = "sessions/one") -> Session:
        return self.dispatcher.session(name)

    def state(self, name: str = "sessions/one") -> SessionState:
        return self.session(name).state

    def participant(self, machine: str, session: str = "sessions/one") -> Participant:
        return self.session(session).participants[machine]

    def states(self, session: str = "sessions/one") -> dict[str, ParticipantState]:
        return {machine: one.state for machine, one in self.session(session).participants.items()}

    def last(self, machine: str) -> Waiting | Assignment | Dismissal:
        return self.heard[machine][-1]

    def assigned(self, machine: str) -> bool:
        return isinstance(self.heard.get(machine, [None])[-1], Assignment)

    def live_leases(self) -> list[tuple[str, int]]:
        return [one.lease for one in self.dispatcher.pool.transmissions.values() if one.release_time is None]

    def _carry_out(self, sender: str, command: Command) -> None:
        match command:
            case StartTransmission():
                self.running[sender].add(command.transmission)
                self.known.setdefault(command.transmission, set()).update(command.machines)
            case AdmitParticipants(transmission, machines):
                self.known.setdefault(transmission, set()).update(machines)
            case StopTransmission(transmission):
                self.running[sender].discard(transmission)

    def _hear(self, machine: str, message: Waiting | Assignment | Dismissal) -> None:
        if isinstance(message, Assignment):
            assert machine in self.known.get(message.transmission, ()), "assigned before the sender was told"
        self.heard.setdefault(machine, []).append(message)


def machines(count: int) -> list[str]:
    return [f"machines/{number}" for number in range(count)]


def live(world: World) -> Iterable[str]:
    return [
        one.name
        for one in world.dispatcher.pool.transmissions.values()
        if one.state in (TransmissionState.STARTING, TransmissionState.RUNNING)
    ]
