from __future__ import annotations

from fleetcast_agent.deployments.orders import StepOutcome, StepRun
from fleetcast_agent.deployments.reporting import ProgressView, StepHistory
from fleetcast_agent.receiving.messages import Assignment, Waiting
from fleetcast_agent.sequence.engine.interface import SequenceProgress
from fleetcast_agent.sequence.engine.records import (
    Evaluated,
    Outcome,
    Record,
    Remarked,
    Started,
    StepEnded,
    StepInterrupted,
    StepSaved,
    StepStarted,
)
from fleetcast_sequence import Redactor, parse

SEQUENCE = parse(
    "name: office\nsteps:\n"
    "  - {name: First hunter2-hunter2, type: run-script, with: {script: x}}\n"
    "  - name: Group\n    when: 'false'\n    steps: [{name: Inner, type: run-script, with: {script: x}}]\n"
)


def taken(*records: Record) -> list[StepRun]:
    history = StepHistory(SEQUENCE, Redactor(["hunter2-hunter2"]))
    return [step for step in map(history.take, records) if step is not None]


def test_every_start_of_a_step_is_an_attempt_of_its_own() -> None:
    steps = taken(
        Started(digest="x"),
        StepStarted(node="1", attempt=1, time=10),
        StepSaved(node="1", checkpoint={}),
        StepInterrupted(node="1", time=20),
        StepStarted(node="1", attempt=1, time=21),
        StepEnded(node="1", outcome=Outcome.FAILED, message="no", time=22),
        StepStarted(node="1", attempt=2, time=23),
        StepEnded(node="1", outcome=Outcome.SUCCEEDED, time=24),
    )
    assert [(step.attempt, step.outcome, step.start_time, step.end_time) for step in steps] == [
        (1, StepOutcome.RUNNING, 10, 0),
        (1, StepOutcome.INTERRUPTED, 10, 20),
        (2, StepOutcome.RUNNING, 21, 0),
        (2, StepOutcome.FAILED, 21, 22),
        (3, StepOutcome.RUNNING, 23, 0),
        (3, StepOutcome.SUCCEEDED, 23, 24),
    ]
    assert "hunter2" not in steps[0].name


def test_a_remark_belongs_to_the_attempt_that_said_it_and_is_told_at_once() -> None:
    steps = taken(
        StepStarted(node="1", attempt=1, time=10),
        Remarked(node="1", text="the partition could not grow", time=11),
        StepInterrupted(node="1", time=20),
        StepStarted(node="1", attempt=1, time=21),
        StepEnded(node="1", outcome=Outcome.SUCCEEDED, time=22),
        Remarked(node="1", text="the journal was copied late", time=23),
    )
    assert [(step.attempt, step.outcome, step.remarks) for step in steps] == [
        (1, StepOutcome.RUNNING, ()),
        (1, StepOutcome.RUNNING, ("the partition could not grow",)),
        (1, StepOutcome.INTERRUPTED, ("the partition could not grow",)),
        (2, StepOutcome.RUNNING, ()),
        (2, StepOutcome.SUCCEEDED, ()),
        (2, StepOutcome.SUCCEEDED, ("the journal was copied late",)),
    ]


def test_conditions_skip_or_fail_what_they_stand_before() -> None:
    steps = taken(
        Evaluated(node="1", holds=False, problem="there is no x", time=1), Evaluated(node="2", holds=False, time=2)
    )
    assert [(step.node, step.outcome, step.message) for step in steps] == [
        ("1", StepOutcome.FAILED, "there is no x"),
        ("2", StepOutcome.SKIPPED, ""),
    ]
    assert taken(Evaluated(node="2", holds=True)) == []


def test_progress_is_said_at_once_when_the_step_or_its_session_changes() -> None:
    said: list[tuple[int, str, bool]] = []
    notices: list[str] = []
    view = ProgressView(
        lambda: said.append((view.present.step, view.present.session, view.present.paused)), notices.append
    )
    view.report(SequenceProgress(1, 2, "Apply", 0.0, 0.0))
    view.waiting(Waiting("sessions/s", "images/i", "waits for 2 machines", 1, 2))
    view.assigned(Assignment("sessions/s", "images/i@sha256:0", 1, "t", "host:1", ""))
    view.report(SequenceProgress(1, 2, "Apply", 0.5, 0.25))
    view.pause(True)
    view.pause(False)
    view.report(SequenceProgress(2, 2, "Boot", 0.0, 0.5))
    assert said == [
        (1, "", False),
        (1, "sessions/s", False),
        (1, "", True),
        (1, "", False),
        (2, "", False),
    ]
    assert notices == ["sessions/s: waits for 2 machines", "receiving i@sha256:0 from host:1"]
