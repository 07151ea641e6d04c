"""What boot services, machines and operators do about starting from the network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.boot.domain.decision import SETTING, Answer, Asker, Decision, Work, decide, matches
from fleetcast_scheduler.boot.domain.reports import BootReport, BootReports
from fleetcast_scheduler.boot.domain.tickets import Tickets, Use
from fleetcast_scheduler.boot.domain.windows import BootWindow, admitting, opened
from fleetcast_scheduler.boot.store import BootStore
from fleetcast_scheduler.enrolment.enrolment import Enrolment
from fleetcast_scheduler.machines.domain.fleet import Fleet, MachineFacts
from fleetcast_scheduler.machines.machines import Machines

_logger = logging.getLogger(__name__)

UNKNOWN_ANSWERS = frozenset({Answer.KNOCK, Answer.LOCAL, Answer.SILENT})
"""What an operator may have unknown machines answered."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What a boot service may give a machine."""

    decision: Decision
    token: str = ""
    """Lets the machine knock; with INSTALL and KNOCK, when it was asked for."""
    ticket: str = ""
    """Gives it the identity of its record; with INSTALL, when it was asked for."""


class DueWork(Protocol):
    """Knows what machines have to do."""

    def due_run(self, machine: str) -> str:
        """Returns the run that a machine has to execute in the boot environment now; empty if none."""


class Boot:
    """Starting from the network, around its rules."""

    def __init__(
        self,
        store: BootStore,
        *,
        audit: Audit,
        fleet: Fleet,
        machines: Machines,
        enrolment: Enrolment,
        due_work: DueWork,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._audit = audit
        self._fleet = fleet
        self._machines = machines
        self._enrolment = enrolment
        self._due_work = due_work
        self._clock = clock
        self._windows: dict[str, BootWindow] = {}
        self._tickets = Tickets()
        self._issued: dict[str, tuple[str, int]] = {}
        """Of each machine: its last run with tickets, and how many."""
        self._reports = BootReports()
        self._unknown_machines = Answer.KNOCK

    async def start(self) -> None:
        """Learns what is open. To be awaited before the server opens its port."""
        self._windows = {window.collection: window for window in await self._store.windows()}
        self._unknown_machines = await self._store.unknown_machines()

    # Boot services

    async def decide(self, asker: Asker, *, with_ticket: bool) -> Permit:
        """Returns what a machine is answered, and with `with_ticket` what it needs to start the boot image."""
        found = matches(asker, self._fleet.machines())
        facts = found[0].facts if found else None
        decision = decide(
            found,
            work=self._work(facts),
            setting=self._setting(facts),
            is_open=facts is not None and self._admitting(facts.name) is not None,
            unknown_machines=self._unknown_machines,
        )
        if not with_ticket or decision.answer not in (Answer.INSTALL, Answer.KNOCK):
            return Permit(decision)
        ticket = self._issue(decision.machine) if decision.answer is Answer.INSTALL else ""
        return Permit(decision, await self._enrolment.knock_token(), ticket)

    def report(self, reports: Sequence[BootReport]) -> None:
        """Takes how far machines got."""
        for report in reports:
            self._reports.put(report)

    # Machines

    async def redeem(self, ticket: str, key_digest: str) -> str:
        """Returns the machine whose identity a key gets for a ticket.

        Raises:
            FailedPreconditionError: the ticket is over, or another key used it: then its machine is held.
        """
        use, machine = self._tickets.use(ticket, key_digest, self._clock())
        if use is Use.SECOND:
            reason = (
                "was given a ticket to start from the network, and two keys used it: somebody on its network segment "
                "took its place, or it was started twice"
            )
            await self._machines.hold(machine, reason)
            raise FailedPreconditionError(
                f"this ticket has been used by another key: {machine} is held until an operator approves it",
                reason="TICKET_USED",
                metadata={"machine": machine},
            )
        if use is Use.UNKNOWN:
            raise FailedPreconditionError(
                "this ticket has ended, or the scheduler was started anew since: start this machine again",
                reason="TICKET_ENDED",
            )
        return machine

    def admits(self, record: str) -> bool:
        """Returns whether a machine that knocks takes over an imported record that two of its identifiers name."""
        return self._admitting(record) is not None

    async def admitted(self, record: str) -> None:
        """Counts a machine that took over an imported record as one of those that are expected."""
        window = self._admitting(record)
        if window is not None:
            self._windows[window.collection] = counted = window.with_machine(record)
            await self._store.put_window(counted)

    # Operators

    async def open(self, collection: str, duration: timedelta | None, expected_count: int) -> BootWindow:
        """Returns a new window for a collection.

        Raises:
            NotFoundError: there is no such collection.
            InvalidArgumentError: the duration or the number is out of range.
        """
        if self._fleet.collection(collection) is None:
            raise NotFoundError(
                f"there is no collection {collection.rpartition('/')[2]}: `fleetcast collection list` shows them",
                reason="COLLECTION_NOT_FOUND",
            )
        window = opened(collection, duration, expected_count, self._clock())
        await self._store.put_window(window)
        self._windows[collection] = window
        self._audit.record("boot.open", collection, expected_count=expected_count, end_time=window.end_time)
        return window

    async def close(self, collection: str) -> BootWindow | None:
        """Returns the window that was open for a collection and is no longer, or None."""
        window = self._windows.pop(collection, None)
        await self._store.remove_window(collection)
        if window is not None:
            self._audit.record("boot.close", collection, admitted_count=len(window.admitted))
        return window

    def open_windows(self) -> list[BootWindow]:
        """Returns the windows that are open, in the order of collections."""
        now = self._clock()
        return sorted((w for w in self._windows.values() if w.is_open(now)), key=lambda window: window.collection)

    @property
    def unknown_machines(self) -> Answer:
        """What unknown machines are answered."""
        return self._unknown_machines

    async def set_unknown_machines(self, answer: Answer) -> None:
        """Sets what unknown machines are answered.

        Raises:
            InvalidArgumentError: that is no answer for them.
        """
        if answer not in UNKNOWN_ANSWERS:
            raise InvalidArgumentError(
                f"unknown machines cannot be answered {answer}: choose knock, local or silent", field="unknown_machines"
            )
        await self._store.put_unknown_machines(answer)
        self._unknown_machines = answer
        self._audit.record("boot.set-policy", "boot", unknown_machines=answer)

    def reports(self, after: tuple[float, str] | None, limit: int) -> list[tuple[BootReport, MachineFacts | None]]:
        """Returns how far machines got, each with the record that it is taken for; that heard last first.

        At most `limit`, of those that come after a position (time, MAC address).
        """
        machines = self._fleet.machines()
        found = [(report, matches(report.asker, machines)) for report in self._reports.newest(after)[:limit]]
        return [(report, match[0].facts if match else None) for report, match in found]

    def _admitting(self, machine: str) -> BootWindow | None:
        facts = self._fleet.machine(machine)
        collections = facts.collections if facts else ()
        return admitting(self._windows.values(), collections, machine, self._clock())

    def _setting(self, facts: MachineFacts | None) -> str:
        if facts is None:
            return ""
        return (self._fleet.collection_variables(facts) | facts.variables).get(SETTING, "")

    def _work(self, facts: MachineFacts | None) -> Work | None:
        run = self._due_work.due_run(facts.name) if facts else ""
        if facts is None or not run:
            return None
        issued_for, count = self._issued.get(facts.name, ("", 0))
        return Work(run, count if issued_for == run else 0)

    def _issue(self, machine: str) -> str:
        work = self._work(self._fleet.machine(machine))
        ticket, is_new = self._tickets.issue(machine, self._clock())
        if work is not None and is_new:
            self._issued[machine] = (work.run, work.tickets + 1)
        return ticket
