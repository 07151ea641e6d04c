"""The state machine of a task sequence: records of what happened in, the next thing to do out. No I/O, no clock.

The semantics:

1. Steps run one after the other, in the order of the file.
2. A disabled step or group is skipped. A condition is evaluated once, right before its step or group; when it is
   false, that is skipped. A condition that cannot be evaluated fails its step or group.
3. A step that fails is tried again as its `retry` says. When its last attempt failed, the step failed.
4. A failed step or group with `continue_on_error` counts as done, and what comes after it runs. Any other failure fails
   the group around it at once: what is left of the group does not run. A failure that reaches the top fails the
   sequence.
5. A step that ended is never run again. One that was running when the agent died runs again (`rerun`), goes on
   (`resume`) or fails without another attempt (`fail`); after `MAX_INTERRUPTIONS` it fails whatever its rule, so that a
   step that kills its machine does not do so for ever. Interrupted attempts are not counted as failed ones.
6. A step may end with a restart: nothing more runs before the machine has started anew. It may ask to be run again
   after it.
7. A skipped step changes nothing about `last`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fleetcast_sequence import Group, InterruptionRule, Node, Step, TaskSequence

from fleetcast_agent.sequence.engine.records import (
    Ended,
    Evaluated,
    NodeId,
    Outcome,
    Record,
    Remarked,
    Restarted,
    Started,
    StepEnded,
    StepInterrupted,
    StepSaved,
    StepStarted,
)

MAX_INTERRUPTIONS = 3
"""Interruptions of one step that are survived."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the condition of a node, and record `Evaluated`."""

    node: NodeId
    condition: str


@dataclass(frozen=True)
class RunStep:
    """Run a step after a pause: record `StepStarted`, then `StepEnded`."""

    node: NodeId
    step: Step
    attempt: int
    delay_seconds: float = 0
    resume: bool = False
    """Go on after an interruption, from `checkpoint`."""
    checkpoint: dict[str, Any] | None = None


@dataclass(frozen=True)
class Restart:
    """Restart the machine; when it is back, record `Restarted`."""

    request: StepEnded


@dataclass(frozen=True)
class Finish:
    """Record `Ended`."""

    outcome: Outcome
    node: NodeId = ""
    message: str = ""


Command = Evaluate | RunStep | Restart | Finish


class _Result(StrEnum):
    DONE = "done"
    """Succeeded, skipped, or failed and tolerated."""
    FAILED = "failed"


@dataclass
class StepState:
    """What is known about one step."""

    running: bool = False
    failed_attempts: int = 0
    interruptions: int = 0
    resume: bool = False
    """Its next run goes on after an interruption."""
    checkpoint: dict[str, Any] | None = None
    ended: StepEnded | None = None
    """How its last attempt ended."""


@dataclass
class RunState:
    """What the records of one run say."""

    digest: str = ""
    evaluated: dict[NodeId, Evaluated] = field(default_factory=dict)
    steps: dict[NodeId, StepState] = field(default_factory=dict)
    restart: StepEnded | None = None
    """The restart that is awaited."""
    variables: dict[str, Any] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    last: StepEnded | None = None
    """How the last step that ran ended."""
    remarks: list[Remarked] = field(default_factory=list)
    """What must be known, in the order in which it was said."""
    ended: Ended | None = None

    @property
    def running(self) -> NodeId | None:
        """The step that was started and did not end; after a start of the agent, the interrupted one."""
        return next((node for node, step in self.steps.items() if step.running), None)

    def apply(self, record: Record) -> None:
        """Takes in what happened."""
        match record:
            case Started():
                self.digest = record.digest
            case Evaluated():
                self.evaluated[record.node] = record
            case StepStarted():
                step = self.steps.setdefault(record.node, StepState())
                step.running, step.ended = True, None
            case StepSaved():
                self.steps[record.node].checkpoint = record.checkpoint
            case Remarked():
                self.remarks.append(record)
            case StepInterrupted():
                step = self.steps[record.node]
                step.running, step.resume = False, True
                step.interruptions += 1
            case StepEnded():
                self._step_ended(record)
            case Restarted():
                if self.restart is not None and self.restart.rerun:
                    self.steps[self.restart.node].ended = None
                self.restart = None
            case Ended():
                self.ended = record

    def _step_ended(self, record: StepEnded) -> None:
        step = self.steps.setdefault(record.node, StepState())
        step.running, step.resume, step.checkpoint, step.ended = False, False, None, record
        step.failed_attempts += record.outcome is Outcome.FAILED
        self.last = record
        self.variables.update(record.variables)
        self.volumes.update(record.volumes)
        self.restart = record if record.restart and record.outcome is Outcome.SUCCEEDED else None


def replay(records: Iterable[Record]) -> RunState:
    """Returns the state after these records."""
    state = RunState()
    for record in records:
        state.apply(record)
    return state


class Engine:
    """Decides what comes next."""

    def __init__(self, sequence: TaskSequence, rules: dict[str, InterruptionRule]) -> None:
        """Takes the sequence, its children in their places, and the rule of each step type."""
        self._sequence = sequence
        self._rules = rules
        self.nodes: dict[NodeId, Group | Step] = dict(_numbered(sequence.steps, ""))
        """Every group and step by its place, in the order they run."""
        self.step_ids: list[NodeId] = [
            node for node, item in self.nodes.items() if isinstance(item, Step) and not self._disabled(node)
        ]
        """The steps that are not disabled."""

    def next(self, state: RunState) -> Command:
        """Returns what to do now; the same until the record that answers it is applied."""
        if state.ended is not None:
            return Finish(state.ended.outcome, state.ended.node, state.ended.message)
        if state.last is not None and state.last.outcome is Outcome.CANCELLED:
            return Finish(Outcome.CANCELLED, state.last.node, state.last.message)
        if state.restart is not None:
            return Restart(state.restart)
        result = self._nodes(self._sequence.steps, "", state)
        if not isinstance(result, _Result):
            return result
        if result is _Result.DONE:
            return Finish(Outcome.SUCCEEDED)
        node = self._failed_node(state)
        return Finish(Outcome.FAILED, node, self._reason(node, state))

    def _nodes(self, nodes: list[Node], parent: NodeId, state: RunState) -> Command | _Result:
        for index, node in enumerate(nodes, 1):
            result = self._node(node, f"{parent}.{index}".lstrip("."), state)
            if result is not _Result.DONE:
                return result
        return _Result.DONE

    def _node(self, node: Node, node_id: NodeId, state: RunState) -> Command | _Result:
        failed = _Result.DONE if node.continue_on_error else _Result.FAILED
        if node.disabled:
            return _Result.DONE
        if node.when is not None:
            evaluated = state.evaluated.get(node_id)
            if evaluated is None:
                return Evaluate(node_id, node.when)
            if evaluated.problem:
                return failed
            if not evaluated.holds:
                return _Result.DONE
        if isinstance(node, Group):
            result = self._nodes(node.steps, node_id, state)
        else:
            result = self._step(node, node_id, state)
        return failed if result is _Result.FAILED else result

    def _step(self, step: Step, node_id: NodeId, state: RunState) -> Command | _Result:
        known = state.steps.get(node_id)
        if known is None:
            return RunStep(node_id, step, 1)
        attempt = known.failed_attempts + 1
        if known.ended is not None and known.ended.outcome is Outcome.SUCCEEDED:
            return _Result.DONE
        if known.ended is None:
            rule = step.on_interruption or self._rules.get(step.type, InterruptionRule.FAIL)
            if known.interruptions and known.resume:
                if rule is InterruptionRule.FAIL or known.interruptions > MAX_INTERRUPTIONS:
                    return _Result.FAILED
                resume = rule is InterruptionRule.RESUME
                return RunStep(node_id, step, attempt, resume=resume, checkpoint=known.checkpoint if resume else None)
            return RunStep(node_id, step, attempt)
        if step.retry is None or known.failed_attempts >= step.retry.attempts:
            return _Result.FAILED
        return RunStep(node_id, step, attempt, step.retry.delay_seconds(known.failed_attempts))

    def _disabled(self, node_id: NodeId) -> bool:
        parts = node_id.split(".")
        return any(self.nodes[".".join(parts[:length])].disabled for length in range(1, len(parts) + 1))

    def _failed_node(self, state: RunState) -> NodeId:
        """Returns the innermost node whose failure was not tolerated."""
        parent, nodes = "", self._sequence.steps
        while True:
            for index, node in enumerate(nodes, 1):
                node_id = f"{parent}.{index}".lstrip(".")
                if self._node(node, node_id, state) is _Result.FAILED:
                    break
            if isinstance(node, Step) or (node_id in state.evaluated and state.evaluated[node_id].problem):
                return node_id
            parent, nodes = node_id, node.steps

    def _reason(self, node: NodeId, state: RunState) -> str:
        if node in state.evaluated and state.evaluated[node].problem:
            return f"its condition cannot be evaluated: {state.evaluated[node].problem}"
        step = state.steps[node]
        if step.ended is not None:
            return step.ended.message
        if step.interruptions > MAX_INTERRUPTIONS:
            return f"it was interrupted {step.interruptions} times"
        return "it was interrupted, and its rule is to fail then"


def _numbered(nodes: list[Node], parent: NodeId) -> Iterable[tuple[NodeId, Group | Step]]:
    for index, node in enumerate(nodes, 1):
        node_id = f"{parent}.{index}".lstrip(".")
        yield node_id, node
        if isinstance(node, Group):
            yield from _numbered(node.steps, node_id)
