"""Deployments that reach machines: `deploy` on one side, `fleetcast-agent run` on the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import DiskImage
from tests.support.attending import AttendingMachine, exit_codes, gather_machines
from tests.support.installation import Installation, wait_until

pytestmark = pytest.mark.e2e

MIB = 1 << 20
REQUIRED = ("--collection", "lab", "--purpose", "required")


def write_sequence(directory: Path, *steps: str, variables: str = "{}") -> Path:
    file = directory / "office.yaml"
    file.write_text(f"name: office\nvariables: {variables}\nsteps:\n" + "".join(f"  - {step}\n" for step in steps))
    return file


def deploy_sequence(installation: Installation, file: Path, *flags: str) -> str:
    installation.fleetcast("task-sequence", "create", str(file))
    made = installation.fleetcast("deploy", *REQUIRED, "--task-sequence", "office", *flags)
    return str(made["deployment"]["name"]).removeprefix("deployments/")


def test_an_image_reaches_the_disks_of_all_machines_at_once(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    image = make_disk_image(24)
    installation.fleetcast("image", "import", str(image.file), "--name", "office")
    machines = gather_machines(installation, ["pc1", "pc2", "pc3"], 40 * MIB)
    for machine in machines:
        machine.disk.write_bytes(os.urandom(40 * MIB))
    installation.fleetcast("deploy", *REQUIRED, "--image", "office", "--unpartitioned", "--min-clients", "3")
    assert exit_codes(machines) == {"pc1": 0, "pc2": 0, "pc3": 0}
    for machine in machines:
        content = machine.disk.read_bytes()
        assert len(content) == 40 * MIB
        assert content[: len(image.content)] == image.content
    assert len(installation.fleetcast("session", "list")["sessions"]) == 1
    (deployment,) = installation.fleetcast("deployment", "list")["deployments"]
    assert deployment["summary"]["succeeded_count"] == 3


def test_a_machine_killed_in_the_middle_of_an_image_takes_only_what_it_lacks(
    either_installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    installation = either_installation
    image = make_disk_image(60)
    installation.fleetcast("image", "import", str(image.file), "--name", "office")
    machines = gather_machines(installation, ["pc1", "pc2"], 64 * MIB)
    installation.fleetcast(
        "deploy", *REQUIRED, "--image", "office", "--unpartitioned", "--min-clients", "2", "--rate", "40M"
    )
    killed = machines[0]
    wait_until(lambda: any(each.get("step_fraction", 0) > 0.1 for each in killed.events()), "a part is written")
    killed.kill()
    installation.kill_server()
    installation.start_server()
    killed.start()
    assert exit_codes(machines) == {"pc1": 0, "pc2": 0}
    for machine in machines:
        assert machine.disk.read_bytes()[: len(image.content)] == image.content
    (deployment,) = installation.fleetcast("deployment", "list")["deployments"]
    assert deployment["summary"]["succeeded_count"] == 2
    (run,) = installation.fleetcast("deployment", "show", deployment["name"], "pc1")["runs"]
    assert [step["outcome"] for step in run["steps"]] == ["interrupted", "succeeded"]


def test_server_and_agents_killed_again_and_again_run_each_step_once(
    installation: Installation, tmp_path: Path
) -> None:
    steps = [
        f"{{name: Step {number}, type: run-script, on_interruption: rerun, with: {{script: "
        f"'sleep 0.5; echo {number} >> {tmp_path}/$NAME', environment: {{NAME: '{{{{ machine.name }}}}'}}}}}}"
        for number in range(1, 5)
    ]
    machines = gather_machines(installation, ["pc1", "pc2"], MIB)
    name = deploy_sequence(installation, write_sequence(tmp_path, *steps))
    machines[0].wait_for("progress", step=2)
    installation.kill_server()
    machines[0].kill()
    installation.start_server()
    machines[0].start()
    machines[1].wait_for("progress", step=4)
    installation.kill_server()
    installation.start_server()
    assert exit_codes(machines) == {"pc1": 0, "pc2": 0}
    for machine in machines:
        assert (tmp_path / machine.name).read_text().split() == ["1", "2", "3", "4"]
    shown = installation.fleetcast("deployment", "show", name)
    assert shown["summary"]["succeeded_count"] == 2
    log = installation.run("deployment", "log", name, "pc1")
    assert log.stdout.count("'Step 3' succeeded") == 1, log.stderr


def test_a_failure_is_known_with_its_step_its_reason_and_its_log(installation: Installation, tmp_path: Path) -> None:
    (machine,) = gather_machines(installation, ["pc1"], MIB)
    name = deploy_sequence(
        installation,
        write_sequence(
            tmp_path,
            "{name: Fine, type: run-script, with: {script: 'echo all is well'}}",
            "{name: Broken, type: run-script, "
            "with: {script: 'echo oh no $KEY; exit 9', environment: {KEY: '{{ key }}'}}}",
            variables="{key: {secret: true}}",
        ),
        "--variable",
        "key=hunter-hunter",
    )
    assert machine.wait() == 1
    shown = (
        installation.run("deployment", "show", name).stdout + installation.run("deployment", "show", name, "pc1").stdout
    )
    assert "Broken" in shown
    log = installation.run("deployment", "log", name, "pc1").stdout
    assert "all is well" in log
    assert "oh no" in log
    assert "hunter-hunter" not in shown + log


def test_an_operator_holds_a_deployment_lets_it_go_on_and_ends_it(installation: Installation, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    (machine,) = gather_machines(installation, ["pc1"], MIB)
    script = f"while true; do echo x >> {marks}; sleep 0.05; done"
    name = deploy_sequence(
        installation, write_sequence(tmp_path, f"{{name: Tick, type: run-script, with: {{script: '{script}'}}}}")
    )
    wait_until(marks.exists, "the step runs")
    installation.fleetcast("deployment", "pause", name)
    machine.wait_for("progress", paused=True)
    before = marks.stat().st_size
    installation.fleetcast("deployment", "resume", name)
    wait_until(lambda: marks.stat().st_size > before, "the step goes on")
    installation.fleetcast("deployment", "cancel", name)
    assert machine.wait() == 1
    assert machine.events()[-1]["outcome"] == "cancelled"


def test_a_restart_is_seen_and_the_run_goes_on_after_it(installation: Installation, tmp_path: Path) -> None:
    (machine,) = gather_machines(installation, ["pc1"], MIB)
    deploy_sequence(
        installation,
        write_sequence(
            tmp_path,
            "{name: Restart, type: restart, with: {target: installed}}",
            f"{{name: After, type: run-script, with: {{script: 'echo {{{{ environment }}}} > {tmp_path}/after'}}}}",
        ),
    )
    assert machine.wait() == 0
    assert (tmp_path / "after").read_text() == "installed\n"
    assert [each["event"] for each in machine.events() if each["event"] == "restarting"] == ["restarting"]


def test_an_available_deployment_runs_where_somebody_accepts_it(installation: Installation, tmp_path: Path) -> None:
    accepting, other = gather_machines(installation, ["pc1", "pc2"], MIB)
    file = write_sequence(tmp_path, "{name: Say, type: run-script, with: {script: 'echo hello'}}")
    installation.fleetcast("task-sequence", "create", str(file))
    made = installation.fleetcast("deploy", "--collection", "lab", "--task-sequence", "office")
    wait_until(lambda: any(each.get("offered_deployments") for each in other.events()), "the deployment is offered")
    accepting.kill()
    accepting.start("--accept", made["deployment"]["name"].removeprefix("deployments/"))
    assert accepting.wait() == 0
    assert other.processes[-1].poll() is None


def test_an_operator_holds_a_machine_that_receives(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    image = make_disk_image(60)
    installation.fleetcast("image", "import", str(image.file), "--name", "office")
    (machine,) = gather_machines(installation, ["pc1"], 64 * MIB)
    made = installation.fleetcast("deploy", *REQUIRED, "--image", "office", "--unpartitioned", "--rate", "40M")
    name = made["deployment"]["name"].removeprefix("deployments/")
    wait_until(lambda: any(each.get("step_fraction", 0) > 0.1 for each in machine.events()), "a part is written")
    installation.fleetcast("deployment", "pause", name)
    machine.wait_for("progress", paused=True)
    before = machine.events()[-1]["step_fraction"]
    wait_until(lambda: len([each for each in machine.events() if each.get("paused")]) > 3, "some seconds pass")
    assert machine.events()[-1]["step_fraction"] - before < 0.2
    installation.fleetcast("deployment", "resume", name)
    assert machine.wait() == 0
    assert machine.disk.read_bytes()[: len(image.content)] == image.content


def test_a_machine_that_is_held_waits_for_an_operator(installation: Installation) -> None:
    installation.fleetcast("machine", "policy", "hold")
    token = installation.fleetcast("enrolment-token", "create")["token"]
    machine = AttendingMachine("pc1", installation, MIB)
    machine.start("--token", token)
    wait_until(lambda: any("held:" in each.get("text", "") for each in machine.events()), "it says that it is held")
    installation.fleetcast("machine", "approve", "pc1")
    machine.wait_for("standby")
