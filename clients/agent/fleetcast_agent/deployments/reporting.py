"""What the scheduler is told of a run while it goes on: steps as they begin and end, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from fleetcast_sequence import InterruptionRule, Redactor, TaskSequence

from fleetcast_agent.deployments.orders import RunProgress, StepOutcome, StepRun
from fleetcast_agent.receiving.messages import Assignment, Totals, Waiting
from fleetcast_agent.sequence.engine.interface import SequenceProgress
from fleetcast_agent.sequence.engine.records import (
    Evaluated,
    NodeId,
    Outcome,
    Record,
    Remarked,
    StepEnded,
    StepInterrupted,
    StepStarted,
)
from fleetcast_agent.sequence.engine.state import Engine

_OUTCOMES = {
    Outcome.SUCCEEDED: StepOutcome.SUCCEEDED,
    Outcome.FAILED: StepOutcome.FAILED,
    Outcome.CANCELLED: StepOutcome.CANCELLED,
}


class StepHistory:
    """Turns the records of a journal into the attempts of its steps. Every start of a step is an attempt of its own."""

    def __init__(self, sequence: TaskSequence, hide: Redactor) -> None:
        rules: dict[str, InterruptionRule] = {}
        self._nodes = Engine(sequence, rules).nodes
        self._hide = hide
        self._attempts: Counter[NodeId] = Counter()
        self._running: dict[NodeId, StepRun] = {}
        self._latest: dict[NodeId, StepRun] = {}

    def take(self, record: Record) -> StepRun | None:
        """Returns what a record says of an attempt; None if nothing."""
        step = self._taken(record)
        if step is not None:
            self._latest[step.node] = step
        return step

    def _taken(self, record: Record) -> StepRun | None:
        match record:
            case StepStarted():
                self._attempts[record.node] += 1
                step = self._step(record.node, StepOutcome.RUNNING, start_time=record.time)
                self._running[record.node] = step
                return step
            case StepEnded():
                return self._ended(record.node, _OUTCOMES[record.outcome], record.message, record.time)
            case Remarked():
                return self._remarked(record)
            case StepInterrupted():
                return self._ended(record.node, StepOutcome.INTERRUPTED, "the machine stopped", record.time)
            case Evaluated(problem=problem) if problem:
                self._attempts[record.node] += 1
                return self._step(
                    record.node, StepOutcome.FAILED, problem, start_time=record.time, end_time=record.time
                )
            case Evaluated(holds=False):
                self._attempts[record.node] += 1
                return self._step(record.node, StepOutcome.SKIPPED, start_time=record.time, end_time=record.time)
            case _:
                return None

    def _remarked(self, record: Remarked) -> StepRun | None:
        latest = self._latest.get(record.node)
        if latest is None:
            return None
        step = replace(latest, remarks=(*latest.remarks, record.text))
        if record.node in self._running:
            self._running[record.node] = step
        return step

    def _ended(self, node: NodeId, outcome: StepOutcome, message: str, time: float) -> StepRun:
        running = self._running.pop(node, None)
        if running is None:  # a restart whose preparation failed ends the step a second time
            running = self._step(node, outcome, start_time=time)
        return replace(running, outcome=outcome, message=message, end_time=time)

    def _step(
        self, node: NodeId, outcome: StepOutcome, message: str = "", *, start_time: float, end_time: float = 0.0
    ) -> StepRun:
        name = self._hide(self._nodes[node].name) if node in self._nodes else node
        return StepRun(node, name, max(self._attempts[node], 1), outcome, message, start_time, end_time)


class ProgressView:
    """How far the run is, from what the engine and receptions say. Call from the event loop's thread.

    `changed` is called when a person would want to know at once.
    """

    def __init__(self, changed: Callable[[], None], noticed: Callable[[str], None]) -> None:
        self.present = RunProgress(0, 0, "", 0.0, "", paused=False)
        self._changed = changed
        self._noticed = noticed

    def report(self, progress: SequenceProgress) -> None:
        """Take what the engine says."""
        before = self.present
        other = (before.step, before.step_name) != (progress.step, progress.name)
        self.present = replace(
            before,
            step=progress.step,
            step_count=progress.step_count,
            step_name=progress.name,
            step_fraction=progress.step_fraction,
            session="" if other or progress.step_fraction == 1 else before.session,
        )
        if other or (progress.step_fraction == 1) != (before.step_fraction == 1):
            self._changed()

    def pause(self, paused: bool) -> None:
        """Take that the run is held, or goes on."""
        self.present = replace(self.present, paused=paused, session="" if paused else self.present.session)
        self._changed()

    # What receptions say: fleetcast_agent.receiving.receive.Observer.

    def waiting(self, waiting: Waiting) -> None:
        """Take that a session has not started."""
        if waiting.session != self.present.session:
            self._noticed(f"{waiting.session}: {waiting.reason or 'waiting for the session to start'}")
        self._receive(waiting.session)

    def assigned(self, assignment: Assignment) -> None:
        """Take that a session sends."""
        self._noticed(f"receiving {assignment.image.removeprefix('images/')} from {assignment.sender_address}")
        self._receive(assignment.session)

    def progressed(self, totals: Totals) -> None:
        """Nothing: the engine hears it as progress of the step."""

    def noticed(self, sentence: str) -> None:
        """Pass a sentence on."""
        self._noticed(sentence)

    def _receive(self, session: str) -> None:
        if session != self.present.session:
            self.present = replace(self.present, session=session)
            self._changed()
