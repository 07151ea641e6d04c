"""The engine against an interpreter of the written semantics that shares nothing with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fleetcast_agent.sequence.engine.records import (
    RECORD,
    Ended,
    Evaluated,
    Outcome,
    Record,
    Restarted,
    Started,
    StepEnded,
    StepInterrupted,
    StepSaved,
    StepStarted,
)
from fleetcast_agent.sequence.engine.state import (
    MAX_INTERRUPTIONS,
    Engine,
    Evaluate,
    Finish,
    Restart,
    RunState,
    RunStep,
    replay,
)
from fleetcast_sequence import Group, InterruptionRule, Node, Retry, Step, TaskSequence
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples

Script = dict[str, list[str]]
"""For each step what happens at its first, second... start: ok, fail, crash, restart, rerun. Then always ok."""


@dataclass
class Story:
    """What happened: every start of a step with its attempt, whether it went on, and the end."""

    starts: list[tuple[str, int, bool]] = field(default_factory=list)
    evaluations: list[str] = field(default_factory=list)
    outcome: str = ""


def told_by_the_rules(sequence: TaskSequence, script: Script) -> Story:
    """Interprets the sequence recursively, as its documentation reads."""
    story = Story()
    happenings = {node: iter(events) for node, events in script.items()}

    def group(nodes: list[Node], prefix: str) -> bool:
        return all(node_passes(node, f"{prefix}{number}") for number, node in enumerate(nodes, 1))

    def node_passes(node: Node, name: str) -> bool:
        if node.disabled:
            return True
        if node.when is not None:
            story.evaluations.append(name)
            if node.when == "false":
                return True
            if node.when == "error":
                return node.continue_on_error
        good = group(node.steps, f"{name}.") if isinstance(node, Group) else step(node, name)
        return good or node.continue_on_error

    def step(node: Step, name: str) -> bool:
        failures = crashes = 0
        goes_on = False
        while True:
            story.starts.append((name, failures + 1, goes_on))
            event = next(happenings.get(name, iter(())), "ok")
            goes_on = False
            if event in ("ok", "restart"):
                return True
            if event == "fail":
                failures += 1
                if node.retry is None or failures == node.retry.attempts:
                    return False
            if event == "crash":
                crashes += 1
                if crashes > MAX_INTERRUPTIONS or node.on_interruption is InterruptionRule.FAIL:
                    return False
                goes_on = node.on_interruption is InterruptionRule.RESUME

    story.outcome = "succeeded" if group(sequence.steps, "") else "failed"
    return story


def told_by_the_engine(sequence: TaskSequence, script: Script) -> Story:
    """Drives the engine, which forgets everything but its written records between any two records."""
    story = Story()
    engine = Engine(sequence, {})
    happenings = {node: iter(events) for node, events in script.items()}
    journal: list[bytes] = []

    def note(record: Record) -> None:
        journal.append(RECORD.dump_json(record))

    note(Started(digest="sha256:0"))
    for _ in range(10_000):
        state = replay(RECORD.validate_json(line) for line in journal)
        if (node := state.running) is not None:
            note(StepInterrupted(node=node))
            continue
        command = engine.next(state)
        match command:
            case Evaluate():
                story.evaluations.append(command.node)
                problem = "cannot" if command.condition == "error" else ""
                note(Evaluated(node=command.node, holds=command.condition == "true", problem=problem))
            case RunStep():
                story.starts.append((command.node, command.attempt, command.resume))
                note(StepStarted(node=command.node, attempt=command.attempt))
                event = next(happenings.get(command.node, iter(())), "ok")
                if event != "crash":
                    note(_ended(command.node, event))
            case Restart():
                note(Restarted())
            case Finish():
                story.outcome = str(command.outcome)
                return story
    raise AssertionError("the engine does not come to an end")


def _ended(node: str, event: str) -> StepEnded:
    outcome = Outcome.FAILED if event == "fail" else Outcome.SUCCEEDED
    restart = "installed" if event in ("restart", "rerun") else None
    return StepEnded.model_validate({"node": node, "outcome": outcome, "restart": restart, "rerun": event == "rerun"})


conditions = st.sampled_from([None, None, None, "true", "false", "error"])
often_not = st.sampled_from([False, False, False, True])
steps = st.builds(
    Step,
    name=st.just("step"),
    type=st.just("x"),
    when=conditions,
    disabled=often_not,
    continue_on_error=often_not,
    retry=st.none() | st.builds(Retry, attempts=st.integers(1, 3)),
    on_interruption=st.sampled_from(InterruptionRule),
)
trees = st.recursive(
    steps,
    lambda inner: st.builds(
        Group,
        name=st.just("group"),
        when=conditions,
        disabled=often_not,
        continue_on_error=often_not,
        steps=st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=12,
)
sequences = st.builds(TaskSequence, name=st.just("any"), steps=st.lists(trees, min_size=1, max_size=4))
events = st.lists(st.sampled_from(["ok", "fail", "fail", "crash", "restart", "rerun"]), max_size=6)


@settings(max_examples=examples(150))
@given(sequences, st.data())
def test_any_tree_with_any_errors_and_restarts_runs_as_the_semantics_say(
    sequence: TaskSequence, data: st.DataObject
) -> None:
    script = {node: data.draw(events) for node in Engine(sequence, {}).step_ids}
    assert told_by_the_engine(sequence, script) == told_by_the_rules(sequence, script)


@settings(max_examples=examples(50))
@given(sequences, st.data())
def test_a_step_that_succeeded_never_starts_again(sequence: TaskSequence, data: st.DataObject) -> None:
    script = {node: data.draw(events) for node in Engine(sequence, {}).step_ids}
    story = told_by_the_engine(sequence, script)
    for node, happened in script.items():
        starts = sum(1 for started, _, _ in story.starts if started == node)
        until_success = next(
            (n for n, event in enumerate(happened, 1) if event in ("ok", "restart")), len(happened) + 1
        )
        assert starts <= until_success


def _engine(*nodes: Node) -> tuple[Engine, RunState]:
    return Engine(TaskSequence(name="a", steps=list(nodes)), {"x": InterruptionRule.RESUME}), RunState()


def _step(name: str = "Step", **more: object) -> Step:
    return Step.model_validate({"name": name, "type": "x", **more})


def _run(engine: Engine, state: RunState) -> RunStep:
    command = engine.next(state)
    assert isinstance(command, RunStep)
    return command


def test_the_failure_names_the_innermost_step_and_its_reason() -> None:
    engine, state = _engine(Group(name="Outer", steps=[Group(name="Inner", steps=[_step("Bad")])]))
    state.apply(StepStarted(node="1.1.1", attempt=1))
    state.apply(StepEnded(node="1.1.1", outcome=Outcome.FAILED, message="no disk"))
    assert engine.next(state) == Finish(Outcome.FAILED, "1.1.1", "no disk")


def test_a_condition_that_cannot_be_evaluated_is_the_reason() -> None:
    engine, state = _engine(Group(name="G", when="error", steps=[_step()]))
    state.apply(Evaluated(node="1", holds=False, problem="no such key"))
    assert engine.next(state) == Finish(Outcome.FAILED, "1", "its condition cannot be evaluated: no such key")


def test_an_interrupted_step_goes_on_from_its_checkpoint() -> None:
    engine, state = _engine(_step())
    for record in (
        StepStarted(node="1", attempt=1),
        StepSaved(node="1", checkpoint={"at": 7}),
        StepInterrupted(node="1"),
    ):
        state.apply(record)
    command = _run(engine, state)
    assert command.resume
    assert command.checkpoint == {"at": 7}


def test_a_retry_begins_afresh_after_a_growing_pause() -> None:
    engine, state = _engine(_step(retry={"attempts": 5, "delay": 2, "backoff": 3, "max_delay": 10}))
    delays = []
    for _ in range(4):
        command = _run(engine, state)
        delays.append(command.delay_seconds)
        assert command.checkpoint is None
        state.apply(StepStarted(node="1", attempt=command.attempt))
        state.apply(StepEnded(node="1", outcome=Outcome.FAILED))
    assert delays == [0, 2, 6, 10]


def test_a_cancelled_step_ends_the_sequence() -> None:
    engine, state = _engine(_step(continue_on_error=True), _step())
    state.apply(StepStarted(node="1", attempt=1))
    state.apply(StepEnded(node="1", outcome=Outcome.CANCELLED, message="by the operator"))
    assert engine.next(state) == Finish(Outcome.CANCELLED, "1", "by the operator")


def test_a_run_that_ended_stays_as_it_ended() -> None:
    engine, state = _engine(_step())
    state.apply(Ended(outcome=Outcome.CANCELLED, message="before it began"))
    assert engine.next(state) == Finish(Outcome.CANCELLED, "", "before it began")


def test_disabled_steps_are_not_counted() -> None:
    engine, _ = _engine(_step(disabled=True), Group(name="G", disabled=True, steps=[_step()]), _step())
    assert engine.step_ids == ["3"]


def _prefixes(items: list[Record]) -> Iterator[list[Record]]:
    for length in range(len(items) + 1):
        yield items[:length]


@pytest.mark.parametrize("rule", list(InterruptionRule))
def test_the_same_records_always_lead_to_the_same_command(rule: InterruptionRule) -> None:
    engine, _ = _engine(_step(on_interruption=rule), _step())
    records: list[Record] = [
        Started(digest="d"),
        StepStarted(node="1", attempt=1),
        StepInterrupted(node="1"),
        StepStarted(node="1", attempt=1),
        StepEnded(node="1", outcome=Outcome.SUCCEEDED),
    ]
    for prefix in _prefixes(records):
        assert engine.next(replay(prefix)) == engine.next(replay(prefix))
