"""The loop around deployments: it stores what their rules decided and then, not before, tells machines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fleetcast.scheduler.v1 import run_service_pb2
from fleetcast_kit.errors import AbortedError, NotFoundError

from fleetcast_scheduler.deployments.domain.events import (
    DeploymentEnded,
    MachinesWoken,
    RunClosed,
    RunControlled,
    RunEvent,
    RunFailed,
    RunOrdered,
    StandbyTold,
)
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger
from fleetcast_scheduler.deployments.domain.machine_reports import MachineReports
from fleetcast_scheduler.deployments.domain.operations import DeploymentOperations
from fleetcast_scheduler.deployments.domain.rollout import Rollout
from fleetcast_scheduler.deployments.domain.run import Run, RunState
from fleetcast_scheduler.deployments.mailbox import RunMailbox, RunNews
from fleetcast_scheduler.deployments.rows import content_row, deployment_row, run_row, step_row
from fleetcast_scheduler.deployments.store import DeploymentStore, RunBatch
from fleetcast_scheduler.loop.cycle import Cycle, Turn

_logger = logging.getLogger(__name__)

REVISION_LEAP = 1_000_000
"""What a restart adds to a deployment's revision: beyond whatever a watcher saw and the store did not."""


class RunPump(Cycle[RunEvent]):
    """Runs deployments: a turn decides, stores in one transaction, then tells machines."""

    def __init__(
        self,
        ledger: DeploymentLedger,
        store: DeploymentStore,
        *,
        write_order: Callable[[Run, float], run_service_pb2.RunOrder],
        wake_machines: Callable[[tuple[str, ...]], None],
        holds_changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.ledger = ledger
        self.presence = MachineReports(ledger)
        self.rollout = Rollout(ledger, self.presence)
        self.operations = DeploymentOperations(ledger, self.rollout)
        self._store = store
        self._write_order = write_order
        self._wake_machines = wake_machines
        self._holds_changed = holds_changed
        self._mailboxes: dict[str, RunMailbox] = {}

    def recover(self, contact_times: dict[str, float]) -> None:
        """Call once before the first turn: no machine is there, nothing else is different."""
        self.ledger.contact_times |= contact_times
        self.presence.recover(self.clock())
        for deployment in self.ledger.deployments.values():
            deployment.revision += REVISION_LEAP
            for run in deployment.runs.values():
                run.revision = deployment.revision
            self.ledger.record(deployment)

    async def conclude(self) -> None:
        """As Cycle.conclude; connected machines count as heard at this moment."""
        self.presence.hear_connected(self.clock())
        await super().conclude()

    # Machines

    def attend(self, machine: str, run: str) -> RunMailbox:
        """A machine opens a stream; an older one of the same machine ends. `run` as in MachineReports.arrive."""
        older = self._mailboxes.get(machine)
        if older is not None:
            older.close(AbortedError(f"{machine} opened another stream", reason="STREAM_REPLACED"))
            self.presence.depart(machine, self.clock())
        mailbox = self._mailboxes[machine] = RunMailbox(machine)
        self.presence.arrive(machine, run, self.clock())
        self.wake()
        return mailbox

    def leave(self, mailbox: RunMailbox) -> None:
        """A machine's stream ended. Nothing happens if the machine has a newer one."""
        if self.attached(mailbox):
            del self._mailboxes[mailbox.machine]
            self.presence.depart(mailbox.machine, self.clock())
            self.wake()

    def remove_machine(self, machine: str, error: str) -> None:
        """A machine was removed or is held, `error` says why: its run and its stream end. It may register again."""
        run = self.ledger.current.get(machine)
        if run is not None:
            self.ledger.end(self.ledger.deployment_of(run), run, RunState.CANCELLED, self.clock(), error)
        if (mailbox := self._mailboxes.get(machine)) is not None:
            mailbox.close(NotFoundError(f"{error}: {machine} must register anew", reason="MACHINE_NOT_FOUND"))
            self.leave(mailbox)
        self.wake()

    def attached(self, mailbox: RunMailbox) -> bool:
        """Returns whether the mailbox is that of the machine's present stream."""
        return self._mailboxes.get(mailbox.machine) is mailbox

    # The loop

    def decide(self, now: float) -> Turn[RunEvent]:
        """Settles deployments. A machine's requests are acknowledged once its progress is stored as well."""
        self.rollout.settle(now)
        batch, changed = self._collect(now)
        unstored = {run.machine for run in self.ledger.reported.values()}
        acknowledgements = [
            (mailbox, mailbox.received_sequence)
            for machine, mailbox in self._mailboxes.items()
            if machine not in unstored
        ]
        events, self.ledger.events = self.ledger.events, []
        self.rollout.forget_ended(now)
        return Turn((lambda: self._store.write(batch)) if batch else None, acknowledgements, events, changed)

    def due_time(self) -> float | None:
        """Returns when a rule has something to decide, if nothing happens before."""
        return self.rollout.wake_time()

    def act(self, event: RunEvent, now: float) -> None:
        """Tells machines, wakes them, and has what an ended deployment holds released."""
        match event:
            case RunOrdered(machine, run):
                present = self.ledger.current.get(machine)
                if present is not None and present.name == run:
                    self._post(machine, self._write_order(present, now))
            case RunControlled(machine) | RunClosed(machine) | StandbyTold(machine):
                self._post(machine, event)
            case MachinesWoken(mac_addresses):
                self._wake_machines(mac_addresses)
            case RunFailed():
                name = event.display_name or "no name"
                _logger.warning("%s (%s) failed in %s: %s", event.machine, name, event.run, event.error)
            case DeploymentEnded(deployment):
                if (ended := self.ledger.deployments.get(deployment)) is not None:
                    counts = ", ".join(f"{count} {word}" for word, count in sorted(ended.counts.items()) if count)
                    where = f"{ended.content.partition('@')[0]} to {ended.collection}"
                    _logger.info("%s (%s) is %s: %s", deployment, where, ended.state.lower(), counts or "no machines")
                self._holds_changed()

    def _post(self, machine: str, message: RunNews) -> None:
        if mailbox := self._mailboxes.get(machine):
            mailbox.post(message)

    def _collect(self, now: float) -> tuple[RunBatch, set[str]]:
        """Returns what is new, as rows, and the names of what changed."""
        ledger = self.ledger
        deployments, ledger.changed = ledger.changed, set()
        runs, ledger.changed_runs = ledger.changed_runs, {}
        steps, ledger.changed_steps = ledger.changed_steps, []
        new_content, ledger.new_content = ledger.new_content, set()
        heard: set[str] = set()
        if self.reports_due(now):
            runs, ledger.reported = ledger.reported | runs, {}
            heard, ledger.heard = ledger.heard, set()
        deployments |= {run.deployment for run in runs.values()}
        present = [ledger.deployments[name] for name in deployments if name in ledger.deployments]
        batch = RunBatch(
            deployments=[deployment_row(deployment) for deployment in present],
            contents=[content_row(ledger.deployments[name]) for name in new_content],
            runs=[run_row(run) for run in runs.values()],
            steps=list({(step.run, step.number): step_row(step) for step in steps}.values()),
            attendances=[{"machine": machine, "contact_time": ledger.contact_times[machine]} for machine in heard],
            audit=self.take_audit(),
        )
        return batch, deployments | {run.machine for run in runs.values()} | heard
