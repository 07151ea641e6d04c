from __future__ import annotations

import os
from pathlib import Path

from fleetcast_agent.deployments.kept_runs import KeptRuns
from fleetcast_agent.deployments.orders import RunEnd, RunOrder
from fleetcast_agent.sequence.engine.records import Outcome

ORDER = RunOrder(run="deployments/d/runs/r", attempt=2, task_sequence="{}", machine_variables={"seat": "7"})


def test_a_run_is_there_again_after_any_restart_of_the_agent(tmp_path: Path) -> None:
    assert KeptRuns(tmp_path).unfinished() is None
    KeptRuns(tmp_path).begin(ORDER)
    kept = KeptRuns(tmp_path).unfinished()
    assert kept is not None
    assert kept.order == ORDER
    assert kept.end is None
    end = RunEnd(outcome=Outcome.FAILED, step="Apply", error="no", output_tail="x", restart="boot", boot_id="b")
    kept.conclude(end)
    kept.close()
    kept = KeptRuns(tmp_path).unfinished()
    assert kept is not None
    assert kept.end == end
    assert kept.closed
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.directory.iterdir())


def test_of_a_run_that_is_over_the_log_alone_stays(tmp_path: Path) -> None:
    runs = KeptRuns(tmp_path)
    for number in range(25):
        kept = runs.begin(ORDER.model_copy(update={"attempt": number}))
        kept.log.write_text("said")
        os.utime(kept.log, (number, number))
        runs.archive(kept)
    assert runs.unfinished() is None
    assert not list((tmp_path / "runs").iterdir())
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    assert names == {f"d-r-{number}.txt" for number in range(5, 25)}


def test_of_two_runs_the_newer_one_counts(tmp_path: Path) -> None:
    runs = KeptRuns(tmp_path)
    old = runs.begin(ORDER)
    os.utime(old.directory / "assignment.json", (1, 1))
    runs.begin(ORDER.model_copy(update={"run": "deployments/d/runs/s"}))
    kept = runs.unfinished()
    assert kept is not None
    assert kept.order.run == "deployments/d/runs/s"
    assert not old.directory.exists()


def test_an_order_that_was_damaged_waits_for_the_scheduler_to_say_it_again(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path).begin(ORDER)
    (kept.directory / "assignment.json").write_text("{")
    (kept.directory / "journal").write_text("what was done")
    assert KeptRuns(tmp_path).unfinished() is None
    again = KeptRuns(tmp_path).begin(ORDER)
    assert (again.directory / "journal").read_text() == "what was done"


def test_a_run_that_another_system_carried_here_goes_on_here(tmp_path: Path) -> None:
    elsewhere = KeptRuns(tmp_path / "boot").begin(ORDER)
    (elsewhere.directory / "journal").write_text("what was done")
    (tmp_path / "installed").mkdir()
    elsewhere.directory.rename(tmp_path / "installed/task-sequence")
    for _ in range(2):
        kept = KeptRuns(tmp_path / "installed").unfinished()
        assert kept is not None
        assert kept.order == ORDER
        assert (kept.directory / "journal").read_text() == "what was done"
