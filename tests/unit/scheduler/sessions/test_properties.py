"""Whatever operators, machines, senders and crashes do, in any order."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules, EndPolicy, LatePolicy
from fleetcast_scheduler.sessions.domain.operations import begin_series
from fleetcast_scheduler.sessions.domain.participant import ParticipantState
from fleetcast_scheduler.sessions.domain.session import SessionMode, SessionState, Timing
from fleetcast_scheduler.sessions.domain.start_rules import Match, StartRules
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.examples import examples
from tests.unit.scheduler.sessions.actors import START, World, machines

MACHINES = machines(4)
SENDERS = ["senders/a", "senders/b"]
RANGE = {"last_group": "239.192.0.1", "last_port": 7501}
"""Four leases for both senders together: they run out."""

machine_names = st.sampled_from(MACHINES)
sender_names = st.sampled_from(SENDERS)


class AnyStory(RuleBasedStateMachine):
    """Sessions, machines, senders and crashes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Timing(quarantine=5, abandoned=50))
        self.count = 0

    @rule(
        mode=st.sampled_from(SessionMode),
        rules=st.builds(
            StartRules,
            min_clients=st.integers(0, 3),
            start_delay_seconds=st.none() | st.integers(0, 60).map(float),
            quiet_seconds=st.none() | st.integers(0, 60).map(float),
            match=st.sampled_from(Match),
            manual=st.booleans(),
        ),
        admission=st.builds(
            AdmissionRules,
            until_time=st.none() | st.integers(0, 200).map(lambda seconds: START + seconds),
            late_policy=st.sampled_from(LatePolicy),
            end_policy=st.sampled_from(EndPolicy),
            max_participants=st.integers(0, 2),
        ),
        priority=st.integers(-1, 1),
        count=st.integers(1, 3),
    )
    def open_session(
        self, mode: SessionMode, rules: StartRules, admission: AdmissionRules, priority: int, count: int
    ) -> None:
        if self.count < 6:
            self.count += 1
            name = f"sessions/{self.count}"
            if mode is SessionMode.AUTO:
                self.world.open_session(name=name, mode=mode)
            else:
                rules = replace(rules, start_time=self.world.now + 5 if count > 1 else None)
                series = begin_series(f"FREQ=DAILY;COUNT={count}" if count > 1 else "", "", rules, admission)
                self.world.open_session(rules, name=name, admission=admission, priority=priority, series=series)

    @rule(machine=machine_names, data=st.data())
    def join(self, machine: str, data: st.DataObject) -> None:
        if name := self.any_session(data):
            with suppress(FailedPreconditionError):
                self.world.join(machine, session=name)

    @rule(machine=machine_names, data=st.data())
    def leave(self, machine: str, data: st.DataObject) -> None:
        if name := self.any_session(data):
            self.world.leave(machine, session=name)

    @rule(machine=machine_names, data=st.data(), succeeded=st.booleans())
    def finish(self, machine: str, data: st.DataObject, succeeded: bool) -> None:
        name = self.any_session(data)
        participant = self.world.session(name).participants.get(machine) if name else None
        if name and participant is not None and participant.state.present:
            self.world.finish(machine, session=name, error=None if succeeded else "the disk is full")

    @rule(machine=machine_names, data=st.data())
    def sender_unreachable(self, machine: str, data: st.DataObject) -> None:
        name = self.any_session(data)
        if name and machine in self.world.session(name).participants:
            self.world.dispatcher.sender_unreachable(name, machine, self.world.now)
            self.world.settle()

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        name = self.any_session(data)
        if name and not self.world.state(name).final:
            self.world.start(name)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if name := self.any_session(data):
            self.world.cancel(name)

    @rule(data=st.data(), verb=st.sampled_from(["close", "drain", "stop"]))
    def end_early(self, data: st.DataObject, verb: str) -> None:
        if name := self.any_session(data):
            operations, session = self.world.dispatcher.operations, self.world.session(name)
            if verb == "close":
                operations.close(session)
            else:
                getattr(operations, verb)(session, self.world.now)
            self.world.settle()

    @rule(machine=machine_names, data=st.data())
    def kick(self, machine: str, data: st.DataObject) -> None:
        name = self.any_session(data)
        if name and machine in self.world.session(name).participants:
            with suppress(FailedPreconditionError):
                self.world.dispatcher.operations.kick(self.world.session(name), machine, "", self.world.now)
            self.world.settle()

    @rule(machine=machine_names, data=st.data())
    def serve_apart(self, machine: str, data: st.DataObject) -> None:
        name = self.any_session(data)
        if name and machine in self.world.session(name).participants:
            with suppress(FailedPreconditionError):
                self.world.dispatcher.operations.serve_apart(self.world.session(name), machine)
            self.world.settle()

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if name := self.any_session(data):
            with suppress(FailedPreconditionError):
                self.world.dispatcher.operations.retry(self.world.session(name), [], self.world.now)
            self.world.settle()

    @rule(sender=sender_names, limit=st.integers(0, 2))
    def connect_sender(self, sender: str, limit: int) -> None:
        self.world.connect_sender(sender, max_concurrent=limit, **RANGE)

    @rule(sender=sender_names, dies=st.booleans())
    def lose_sender(self, sender: str, dies: bool) -> None:
        if sender in self.world.epochs:
            (self.world.kill_sender if dies else self.world.disconnect_sender)(sender)

    @rule(sender=sender_names, error=st.sampled_from(["", "", "", "the socket cannot be opened"]))
    def answer(self, sender: str, error: str) -> None:
        if self.world.orders.get(sender):
            self.world.answer(sender, error)

    @rule(seconds=st.sampled_from([0.5, 4, 30, 90, 700, 90_000]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @invariant()
    def no_group_and_port_is_leased_twice(self) -> None:
        leases = Counter(one.lease for one in self.world.dispatcher.pool.transmissions.values())
        assert not [lease for lease, count in leases.items() if count > 1]

    @invariant()
    def only_running_sessions_have_a_transmission(self) -> None:
        pool, sessions = self.world.dispatcher.pool, self.world.dispatcher.ledger.sessions
        live = {one.name: one.session for one in pool.transmissions.values() if one.state.live}
        wanted = {one.transmission: one.name for one in sessions.values() if one.transmission}
        assert live == wanted
        assert all(sessions[name].state is SessionState.RUNNING for name in wanted.values())

    @invariant()
    def never_more_than_the_maximum_receive(self) -> None:
        for session in self.world.dispatcher.ledger.sessions.values():
            most = session.admission.max_participants
            assert not most or session.counts[ParticipantState.RECEIVING] <= most
            assert set(session.queue) == set(session.machines(ParticipantState.WAITING))

    @invariant()
    def counts_agree_with_participants(self) -> None:
        for session in self.world.dispatcher.ledger.sessions.values():
            assert +session.counts == Counter(one.state for one in session.participants.values())

    @invariant()
    def every_open_session_goes_on_or_says_why_not(self) -> None:
        for session in self.world.dispatcher.ledger.sessions.values():
            starved = session.state is SessionState.RUNNING and not session.transmission and session.present_count
            if session.state is SessionState.WAITING or starved:
                assert session.waiting_reason
            elif session.state is SessionState.IDLE:
                assert session.wake_time is not None
            elif session.state.final:
                assert not session.open_count
                assert session.end_time is not None

    def teardown(self) -> None:
        """With a sender that works and machines that finish, every session that has machines ends."""
        world = self.world
        world.crash()
        for sender in SENDERS:
            world.connect_sender(sender, **RANGE)
        for _ in range(20):
            for name, session in list(world.dispatcher.ledger.sessions.items()):
                if not session.state.final:
                    world.start(name)
            world.answer_all()
            world.advance(60)
            for name, session in list(world.dispatcher.ledger.sessions.items()):
                for machine, participant in session.participants.items():
                    if participant.state.present and session.transmission and world.assigned(machine):
                        world.finish(machine, session=name)
        for _ in range(3):  # the later ones of a series
            world.advance(3600)
            for name, session in list(world.dispatcher.ledger.sessions.items()):
                if not session.state.final:
                    world.start(name)
        world.advance(3600)
        world.answer_all()
        assert all(session.state.final for session in world.dispatcher.ledger.sessions.values())
        assert all(not running for running in world.running.values())

    def any_session(self, data: st.DataObject) -> str | None:
        names = sorted(self.world.dispatcher.ledger.sessions)
        return data.draw(st.sampled_from(names)) if names else None


AnyStory.TestCase.settings = settings(max_examples=examples(80), stateful_step_count=50)
TestAnyStory = AnyStory.TestCase
