"""Deployments and runs as people write and read them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from fleetcast.scheduler.v1.deployment_pb2 import Deployment, DeploymentSummary, Phase, Run, ScheduleTime, StepRun
from fleetcast.scheduler.v1.deployment_service_pb2 import PlannedRun
from fleetcast_cli.deployments.phases import format_phase, parse_phases
from fleetcast_cli.deployments.view import (
    by_attention,
    deployment_change,
    deployment_fields,
    is_over,
    plan_table,
    run_change,
    run_label,
    run_table,
    screen,
    step_table,
    summary_line,
)
from fleetcast_kit.errors import InvalidArgumentError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType

DIGEST = "ab" * 32
BEGAN = Timestamp(seconds=int(datetime(2026, 12, 1, 1, tzinfo=UTC).timestamp()))


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def render(view: RenderableType) -> str:
    console = Console(width=200, markup=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def deployment(**values: object) -> Deployment:
    message = Deployment(
        name="deployments/d1",
        collection="collections/lab",
        image=f"images/win11@sha256:{DIGEST}",
        purpose=Deployment.PURPOSE_REQUIRED,
        state=Deployment.STATE_ACTIVE,
        revision=1,
        summary=DeploymentSummary(target_count=4, waiting_count=1, running_count=1, succeeded_count=1, failed_count=1),
    )
    message.MergeFrom(Deployment(**values))  # type: ignore[arg-type]
    return message


def run(machine: str, state: "Run.State.ValueType", **values: object) -> Run:
    fields = {"step": 3, "step_count": 9, "step_name": "Apply image", "step_fraction": 0.42, "attempt": 1} | values
    return Run(
        name=f"deployments/d1/runs/{machine}",
        machine=f"machines/{machine}",
        display_name=f"pc-{machine}",
        state=state,
        start_time=BEGAN,
        content=f"taskSequences/base@sha256:{DIGEST}",
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("10%", Phase(percent=10)),
        ("50", Phase(count=50)),
        ("10%,success=90%,manual", Phase(percent=10, success_percent=90, manual=True)),
        ("25 %, after=1d", Phase(percent=25, delay=Duration(seconds=86400))),
    ],
)
def test_phases_are_read_as_people_write_them_and_written_back(text: str, phase: Phase) -> None:
    assert parse_phases([text]) == [phase]
    assert parse_phases([format_phase(phase)]) == [phase]


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["ten"], "'ten' is not a phase"),
        (["0%"], "1% to 100%"),
        (["101%"], "1% to 100%"),
        (["0"], "1 or more machines"),
        (["10%,success=all"], "success is not a number"),
        (["10%,success=0"], "success is 1% to 100%"),
        (["10%,soon"], "'soon' in '10%,soon' is not known"),
        (["10%,after=soon"], "'soon' is not a duration"),
        (["50%", "10%"], "'10%' is not larger than '50%'"),
    ],
)
def test_what_is_no_phase_is_refused_with_its_value(texts: list[str], complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_phases(texts)
    assert complaint in caught.value.message


def test_a_deployment_says_everything_that_was_set_and_its_times_in_full() -> None:
    shown = dict(
        deployment_fields(
            deployment(
                available_time=ScheduleTime(utc=BEGAN),
                deadline_time=ScheduleTime(local="2026-12-02T22:00"),
                phases=[Phase(percent=10, manual=True), Phase(percent=50)],
                variables={"room": "5"},
                waiting_reason="waits for an operator",
            )
        )
    )
    assert shown["state"] == "active; waits for an operator"
    assert shown["deploys"] == "image win11@sha256:abababababab"
    assert shown["available"].startswith("Tue 2026-12-01 02:00 +01:00 Europe/Berlin = 2026-12-01 01:00 UTC, ")
    assert shown["deadline"] == "Wed 2026-12-02 22:00 on each machine's own clock"
    assert shown["expires"] == ""
    assert shown["phases"].splitlines() == ["1: 10%,manual  <- now", "2: 50%"]
    assert shown["machines"] == "4: 1 waiting, 1 running, 1 succeeded, 1 failed"
    assert summary_line(Deployment()) == "0"


def test_a_plan_says_what_happens_to_which_machine() -> None:
    planned = [
        PlannedRun(machine="machines/a", display_name="pc-a", targeted=True, start_time="2026-12-01T02:00:00+01:00"),
        PlannedRun(machine="machines/b", targeted=True, phase=1, reason="waits for phase 2 of 2"),
        PlannedRun(machine="machines/c", display_name="pc-c", reason="is protected"),
    ]
    rows = [line.split() for line in render(plan_table(planned)).splitlines()]
    assert rows[0] == ["machine", "name", "target", "phase", "begins", "why"]
    assert rows[3] == ["a", "pc-a", "yes", "1", "2026-12-01", "02:00", "+0100"]
    assert rows[2] == ["b", "-", "yes", "2", "-", *["waits", "for", "phase", "2", "of", "2"]]
    assert rows[4] == ["c", "pc-c", "no", "-", "-", "is", "protected"]


def test_runs_show_their_step_and_what_is_wrong() -> None:
    ended = Timestamp(seconds=BEGAN.seconds + 185)
    runs = [
        run("a", Run.STATE_RUNNING),
        run("b", Run.STATE_FAILED, error="the disk is too small", end_time=ended, attempt=2),
        run("c", Run.STATE_LOST, contact_time=BEGAN),
        run("d", Run.STATE_WAITING, reason="waits for phase 2", step=0, attempt=0),
    ]
    lines = render(run_table(runs)).splitlines()[2:]
    assert lines[0].split()[:8] == ["a", "pc-a", "running", "3/9", "Apply", "image", "42", "%"]
    assert lines[1].split()[-9:] == ["-", "3:05", "attempt", "2,", "the", "disk", "is", "too", "small"]
    assert "no contact since 2026-12-01 02:00:00 +0100" in lines[2]
    assert "waits for phase 2" in lines[3]
    assert render(run_table(runs[:1], of_machine=True)).splitlines()[2].split()[:2] == [
        "d1",
        "base@sha256:abababababab",
    ]
    assert run_label(runs[3]) == "pc-d (d) is waiting: waits for phase 2"


def test_steps_show_every_attempt() -> None:
    end = Timestamp(seconds=BEGAN.seconds + 12)
    steps = [
        StepRun(
            node="1",
            step_name="Partition",
            attempt=1,
            outcome=StepRun.OUTCOME_SUCCEEDED,
            start_time=BEGAN,
            end_time=end,
        ),
        StepRun(node="2", step_name="Apply", attempt=2, outcome=StepRun.OUTCOME_FAILED, message="no space"),
        StepRun(node="3", step_name="Wait", attempt=1, start_time=BEGAN),
    ]
    rows = [line.split() for line in render(step_table(steps)).splitlines()[2:]]
    assert rows[0] == ["1", "Partition", "succeeded", "2026-12-01", "02:00:00", "+0100", "12", "s"]
    assert rows[1] == ["2", "#2", "Apply", "failed", "-", "-", "no", "space"]
    assert rows[2][:3] == ["3", "Wait", "running"]


def test_only_changes_that_matter_make_a_line() -> None:
    before = run("a", Run.STATE_RUNNING)
    assert run_change(None, before) == "pc-a (a): running, 3/9 Apply image, 42 %"
    assert run_change(before, run("a", Run.STATE_RUNNING, step_fraction=0.45)) is None
    assert run_change(before, run("a", Run.STATE_RUNNING, step_fraction=0.55)) is not None
    assert run_change(before, run("a", Run.STATE_SUCCEEDED, step=9)) == "pc-a (a): succeeded, 9/9 Apply image"
    assert deployment_change(None, deployment()) == (
        "deployment d1: active; 4: 1 waiting, 1 running, 1 succeeded, 1 failed"
    )
    assert deployment_change(deployment(), deployment(revision=2)) is None


def test_a_run_that_succeeded_unheard_shows_no_step_that_it_left_long_ago() -> None:
    assert run_change(None, run("a", Run.STATE_SUCCEEDED, step=4)) == "pc-a (a): succeeded, 9/9"


def test_a_step_that_measures_nothing_has_no_percentage() -> None:
    assert "%" not in render(run_table([run("a", Run.STATE_RUNNING, step_fraction=0)]))
    assert "42 %" in render(run_table([run("a", Run.STATE_RUNNING)]))


def test_a_watched_screen_leaves_out_ids_that_names_make_needless() -> None:
    reason = "waits for the maintenance window"
    both = [run("a", Run.STATE_WAITING, reason=reason), run("b", Run.STATE_WAITING, reason=reason)]
    assert render(run_table(both, one_line=True)).split()[0] == "name"
    both[1].display_name = "pc-a"
    assert render(run_table(both, one_line=True)).split()[0] == "machine"
    assert render(run_table(both)).split()[0] == "machine"
    of_machine = render(run_table(both[:1], of_machine=True, one_line=True))
    assert "base " in of_machine
    assert "sha256" not in of_machine


def test_a_deployment_is_over_when_every_machine_has_an_outcome() -> None:
    ended = DeploymentSummary(target_count=4, succeeded_count=1, failed_count=3)
    assert not is_over(deployment())
    assert not is_over(Deployment())
    assert is_over(Deployment(summary=ended))


def test_a_crowded_screen_shows_those_in_need_first_and_counts_the_rest() -> None:
    runs = {each.machine: each for each in [run(f"m{number}", Run.STATE_SUCCEEDED) for number in range(30)]}
    runs["machines/x"] = run("x", Run.STATE_FAILED, error="broken")
    lines = render(screen(deployment(), runs, rows=14, notice="no contact with the server")).splitlines()
    assert len(lines) <= 14
    assert lines[2] == "no contact with the server"
    assert "pc-x" in lines[6]
    assert lines[-1].startswith("and 2")
    assert "more machines" in lines[-1]


def test_the_machines_of_a_deployment_are_listed_by_who_needs_attention_then_by_name() -> None:
    states = (Run.STATE_SUCCEEDED, Run.STATE_WAITING, Run.STATE_RUNNING, Run.STATE_LOST, Run.STATE_FAILED)
    runs = [run(f"m{number}", state) for number, state in enumerate((*states, Run.STATE_FAILED))]
    ordered = [one.machine.rpartition("/")[2] for one in sorted(runs, key=by_attention)]
    assert ordered == ["m4", "m5", "m3", "m2", "m1", "m0"]
