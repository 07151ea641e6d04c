"""Deployments and runs for people: whole tables, and the lines that say what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from fleetcast.scheduler.v1.deployment_pb2 import Deployment, Remark, Run, ScheduleTime, StepRun
from fleetcast.scheduler.v1.deployment_service_pb2 import PlannedRun
from fleetcast_kit.values.durations import format_duration
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fleetcast_cli.deployments.phases import format_phase
from fleetcast_cli.sessions.view import template_fields
from fleetcast_cli.shell.plain import short_name
from fleetcast_cli.shell.references import identifier, short_image
from fleetcast_cli.shell.text import (
    ABSENT,
    fields,
    format_clock,
    format_instant,
    format_seconds,
    format_time,
    plural,
    table,
)
from fleetcast_cli.task_sequences.lookup import short_sequence
from fleetcast_cli.task_sequences.variables import format_variables

FINAL_STATES = frozenset({Deployment.STATE_COMPLETED, Deployment.STATE_EXPIRED, Deployment.STATE_CANCELLED})
"""States that a deployment does not leave."""

_OPEN = frozenset({Run.STATE_RUNNING, Run.STATE_RESTARTING, Run.STATE_PAUSED, Run.STATE_LOST})
_STYLES = {
    Run.STATE_RUNNING: "cyan",
    Run.STATE_RESTARTING: "cyan",
    Run.STATE_SUCCEEDED: "green",
    Run.STATE_FAILED: "bold red",
    Run.STATE_LOST: "bold yellow",
    Run.STATE_PAUSED: "yellow",
    Run.STATE_CANCELLED: "dim",
    Run.STATE_SKIPPED: "dim",
}
_ATTENTION = (
    Run.STATE_FAILED,
    Run.STATE_LOST,
    Run.STATE_PAUSED,
    Run.STATE_RUNNING,
    Run.STATE_RESTARTING,
    Run.STATE_WAITING,
    Run.STATE_CANCELLED,
    Run.STATE_SKIPPED,
    Run.STATE_SUCCEEDED,
)
"""Order of a table of machines: who needs attention first."""

_STEP_PERCENT = 25
"""A change line for every so many percent of a step."""


def content(name: str) -> str:
    """Returns the version that is deployed, as people see it."""
    return short_sequence(name) if name.startswith("taskSequences/") else short_image(name)


def schedule_time(deployment: Deployment, field: str) -> str:
    """Returns one of a deployment's times so that nobody misreads it; empty if it is not set."""
    if not deployment.HasField(field):  # type: ignore[arg-type]  # the stub lists the fields one by one
        return ""
    time: ScheduleTime = getattr(deployment, field)
    if time.WhichOneof("time") == "utc":
        return format_instant(time.utc)
    return f"{datetime.fromisoformat(time.local):%a %Y-%m-%d %H:%M} on each machine's own clock"


def deployment_fields(deployment: Deployment) -> list[tuple[str, str]]:
    """Returns names and values of what a deployment says about itself."""
    what = deployment.image or deployment.task_sequence
    return [
        ("deployment", identifier(deployment.name)),
        ("description", deployment.description),
        ("state", state_line(deployment) if deployment.name else ""),
        ("deploys", f"{'image' if deployment.image else 'task sequence'} {content(what)}"),
        ("to", f"collection {identifier(deployment.collection)}"),
        ("purpose", short_name(deployment, "purpose") or "available"),
        ("available", schedule_time(deployment, "available_time") or "at once"),
        ("deadline", schedule_time(deployment, "deadline_time")),
        ("expires", schedule_time(deployment, "expiry_time")),
        ("maintenance", "windows are ignored" if deployment.ignore_maintenance_windows else ""),
        ("wake", "machines that are off at the deadline" if deployment.wake else ""),
        ("rerun", (short_name(deployment, "rerun") or "if_failed").replace("_", " ")),
        (
            "at most",
            format_duration(deployment.max_run_time.ToTimedelta()) + " for a run"
            if deployment.HasField("max_run_time")
            else "",
        ),
        ("phases", "\n".join(_phases(deployment))),
        ("variables", format_variables(deployment.variables)),
        *((f"session {name}", value) for name, value in template_fields(deployment.session)),
        ("machines", summary_line(deployment) if deployment.name else ""),
        ("created", format_time(deployment.create_time) if deployment.name else ""),
        ("ended", format_time(deployment.end_time) if deployment.HasField("end_time") else ""),
    ]


def is_over(deployment: Deployment) -> bool:
    """Returns whether every machine has an outcome."""
    counts = deployment.summary
    return bool(counts.target_count) and counts.succeeded_count + counts.failed_count >= counts.target_count


def state_line(deployment: Deployment) -> str:
    """Returns a deployment's state and what holds it up."""
    return "; ".join(filter(None, [short_name(deployment, "state"), deployment.waiting_reason]))


def summary_line(deployment: Deployment) -> str:
    """Returns how many machines stand where: `22: 12 waiting, 5 running, 4 succeeded (2 with remarks), 1 failed`."""
    summary = deployment.summary
    succeeded = "succeeded" + (f" ({summary.remarked_count} with remarks)" if summary.remarked_count else "")
    counts = (
        (summary.waiting_count, "waiting"),
        (summary.running_count, "running"),
        (summary.succeeded_count, succeeded),
        (summary.failed_count, "failed"),
        (summary.unknown_count, "unknown"),
    )
    parts = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{summary.target_count}{f': {parts}' if parts else ''}"


def plan_table(planned: Iterable[PlannedRun]) -> Table:
    """Returns what a deployment would do to which machine, by the names that people know them by."""
    planned = sorted(planned, key=lambda one: (one.display_name or identifier(one.machine), one.machine))
    phased = any(one.phase for one in planned)
    rows = table("machine", "name", "target", *(["phase"] if phased else []), "begins", "why", right=("phase",))
    for one in planned:
        phase = [str(one.phase + 1) if one.targeted else ABSENT] if phased else []
        target = "yes" if one.targeted else Text("no", style="yellow")
        begins = f"{datetime.fromisoformat(one.start_time):%Y-%m-%d %H:%M %z}" if one.start_time else ABSENT
        rows.add_row(identifier(one.machine), one.display_name or ABSENT, target, *phase, begins, one.reason)
    return rows


def run_table(runs: Iterable[Run], *, of_machine: bool = False, one_line: bool = False) -> Table:
    """Returns a table with one row for each run: of machines, or of one machine's deployments.

    With `one_line` the reason has the room that ids and digests would take where a name says the same.
    """
    runs = list(runs)
    names = {run.display_name for run in runs if run.display_name}
    first = ["deployment", "deploys"] if of_machine else ["machine", "name"]
    if one_line and not of_machine and len(names) == len(runs):
        first.remove("machine")
    rows = table(*first, "state", "step", "done", "took", "", right=("done", "took"), one_line=one_line)
    for run in runs:
        known = content(run.content).partition("@")[0] if one_line else content(run.content)
        who = (run.name.split("/")[1], known) if of_machine else (identifier(run.machine), run.display_name or ABSENT)
        percent = int(100 * run.step_fraction) if run.state == Run.STATE_RUNNING else 0
        rows.add_row(
            *who[-len(first) :],
            Text(_state(run), style="yellow" if _remarked(run) else _STYLES.get(run.state, "")),
            _step(run),
            f"{percent} %" if percent else ABSENT,
            _took(run),
            why(run, one_line=one_line),
        )
    return rows


def step_table(steps: Iterable[StepRun], *, one_line: bool = False) -> Table:
    """Returns every attempt of every step, in the order in which they began."""
    rows = table("step", "name", "outcome", "began", "took", "", right=("took",), one_line=one_line)
    for step in steps:
        failed = step.outcome in (StepRun.OUTCOME_FAILED, StepRun.OUTCOME_INTERRUPTED)
        rows.add_row(
            step.node + (f" #{step.attempt}" if step.attempt > 1 else ""),
            step.step_name,
            Text(short_name(step, "outcome") or "running", style="bold red" if failed else ""),
            format_clock(step.start_time) if one_line else format_time(step.start_time),
            _between(step.start_time.ToNanoseconds(), step.end_time.ToNanoseconds()),
            step_sentences(step),
        )
    return rows


def screen(deployment: Deployment, runs: Mapping[str, Run], *, rows: int, notice: str) -> Group:
    """Returns what fits on a terminal `rows` high: the deployment, those who need attention first, how many more."""
    what = content(deployment.image or deployment.task_sequence)
    title = f"deployment {identifier(deployment.name)}  {what} to {identifier(deployment.collection)}"
    parts: list[Text | Table] = [
        Text(title, style="bold"),
        Text(f"{state_line(deployment)}; {summary_line(deployment)}"),
    ]
    if notice:
        parts.append(Text(notice, style="bold yellow"))
    ordered = sorted(runs.values(), key=by_attention)
    shown = ordered[: max(1, rows - len(parts) - 6)]
    if shown:
        parts += [Text(""), run_table(shown, one_line=True)]
    if len(ordered) > len(shown):
        parts.append(Text(f"and {plural(len(ordered) - len(shown), 'more machine')}"))
    return Group(*parts)


def summary(deployment: Deployment, runs: Mapping[str, Run]) -> Group:
    """Returns the end of a watch: the deployment and the table of all its machines."""
    head = [
        ("deployment", identifier(deployment.name)),
        ("state", state_line(deployment)),
        ("machines", summary_line(deployment)),
    ]
    return Group(fields(head), Text(""), run_table(sorted(runs.values(), key=by_attention)))


def deployment_change(before: Deployment | None, after: Deployment) -> str | None:
    """Returns the line that says what changed in a deployment, or None if nothing that matters did."""
    if before is not None and (before.state, before.waiting_reason, before.summary, before.current_phase) == (
        after.state,
        after.waiting_reason,
        after.summary,
        after.current_phase,
    ):
        return None
    phase = f"; phase {after.current_phase + 1}" if after.phases else ""
    return f"deployment {identifier(after.name)}: {state_line(after)}{phase}; {summary_line(after)}"


def run_change(before: Run | None, after: Run) -> str | None:
    """Returns the line that says what changed in a run: its state, its step, a part of it; None if nothing did."""
    if before is not None and _mark(before) == _mark(after):
        return None
    name = after.display_name or identifier(after.machine)
    parts = [_state(after), *filter(lambda part: part not in ("", ABSENT), [_step(after)])]
    if after.state == Run.STATE_RUNNING and after.step_fraction:
        parts.append(f"{int(100 * after.step_fraction)} %")
    parts += filter(None, [why(after)])
    return f"{name} ({identifier(after.machine)}): {', '.join(parts)}"


def run_label(run: Run) -> str:
    """Returns a run in a sentence: `pc-7 (ab12) is waiting: for phase 2`."""
    name, machine = run.display_name, identifier(run.machine)
    reason = why(run)
    return f"{name or machine} ({machine}) is {_state(run)}{f': {reason}' if reason else ''}"


def _phases(deployment: Deployment) -> Iterable[str]:
    for index, phase in enumerate(deployment.phases):
        present = "  <- now" if deployment.name and index == deployment.current_phase else ""
        yield f"{index + 1}: {format_phase(phase)}{present}"


def by_attention(run: Run) -> tuple[int, bool, int, str]:
    """Returns the place of a run in a table of a deployment's machines: who needs attention first."""
    rank = _ATTENTION.index(run.state) if run.state in _ATTENTION else len(_ATTENTION)
    return rank, not run.remarks, run.step, run.display_name or identifier(run.machine)


def _mark(run: Run) -> tuple[object, ...]:
    return (
        run.state,
        run.attempt,
        run.step,
        int(100 * run.step_fraction) // _STEP_PERCENT,
        run.reason,
        run.error,
        len(run.remarks),
    )


def _step(run: Run) -> str:
    if not run.step:
        return ABSENT
    if run.state == Run.STATE_SUCCEEDED and run.step < run.step_count:
        return f"{run.step_count}/{run.step_count}"  # the last steps ended while nobody heard of them
    of = f"/{run.step_count}" if run.step_count else ""
    return f"{run.step}{of} {run.step_name}"


def _took(run: Run) -> str:
    return _between(run.start_time.ToNanoseconds(), run.end_time.ToNanoseconds(), running=run.state in _OPEN)


def _between(start_nanoseconds: int, end_nanoseconds: int, *, running: bool = False) -> str:
    if not start_nanoseconds or not (end_nanoseconds or running):
        return ABSENT
    end = end_nanoseconds / 1e9 if end_nanoseconds else datetime.now(UTC).timestamp()
    return format_seconds(max(0.0, end - start_nanoseconds / 1e9))


def why(run: Run, *, one_line: bool = False) -> str:
    """Returns why a run is where it is, and its remarks; empty if there is nothing to say."""
    if run.state == Run.STATE_LOST:
        return f"no contact since {format_clock(run.contact_time) if one_line else format_time(run.contact_time)}"
    if run.state == Run.STATE_WAITING:
        return run.reason
    again = f"attempt {run.attempt}" if run.attempt > 1 else ""
    reason = ", ".join(filter(None, [again, run.error or run.reason]))
    return "; ".join(filter(None, [reason, *(_remark(one) for one in run.remarks)]))


def step_sentences(step: StepRun) -> str:
    """Returns why a step ended as it did, and what it remarked."""
    return "; ".join(filter(None, [step.message, *step.remarks]))


def _remark(remark: Remark) -> str:
    return f"{remark.step_name}: {remark.text}" if remark.step_name else remark.text


def _remarked(run: Run) -> bool:
    return run.state == Run.STATE_SUCCEEDED and bool(run.remarks)


def _state(run: Run) -> str:
    return "succeeded with remarks" if _remarked(run) else short_name(run, "state")
