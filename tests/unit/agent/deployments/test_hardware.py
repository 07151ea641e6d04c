from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from fleetcast_agent.deployments.hardware import open_hardware
from fleetcast_agent.deployments.registering import describe
from fleetcast_agent.deployments.restarting import Computer, Rehearsal, _environment_of
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples


def disk(path: Path, size_bytes: int = 8192) -> Path:
    path.write_bytes(bytes(size_bytes))
    return path


def test_machines_on_disk_files_differ_by_their_state_directories_and_stay_the_same(tmp_path: Path) -> None:
    file = disk(tmp_path / "disk")
    one, other = (open_hardware([file], None, tmp_path / name).gather() for name in ("one", "other"))
    again = open_hardware([file], None, tmp_path / "one").gather()
    for key in ("uuid", "serial", "mac_addresses"):
        assert one[key] != other[key]
        assert one[key] == again[key]
    described = describe(one, "pc1")
    assert described.mac_addresses[0].startswith("02:")
    assert [(each.device, each.size_bytes) for each in described.disks] == [(str(file), 8192)]


def test_an_inventory_file_wins_over_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "inventory.json"
    stated = {"serial": "S1", "uuid": "u", "mac_addresses": ["AA:BB:CC:00:00:01", "none"], "architecture": "x86_64"}
    file.write_text(json.dumps(stated))
    described = describe(open_hardware([], file, tmp_path).gather(), "pc1")
    assert (described.serial_number, described.smbios_uuid) == ("S1", "u")
    assert described.mac_addresses == ("aa:bb:cc:00:00:01",)
    assert described.architecture == "x64"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "no JSON object"),
        ("{", "cannot be read"),
        ('{"serail": "x"}', "an inventory has: adapters, architecture"),
        ('{"memory_bytes": "8G"}', "must be of the type int"),
        ('{"mac_addresses": [1]}', "must be a list like"),
        ('{"disks": [{"path": "/dev/sda"}]}', "must be a list like .*size_bytes"),
    ],
)
def test_an_inventory_file_that_is_not_correct_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "inventory.json"
    file.write_text(content)
    with pytest.raises(InvalidArgumentError, match=reason):
        open_hardware([], file, tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
NAMES = st.sampled_from(["serial", "uuid", "mac_addresses", "adapters", "disks", "memory_bytes", "architecture", "x"])


INVENTORIES = st.dictionaries(NAMES, VALUES, max_size=3).map(lambda stated: json.dumps(stated).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
@given(content=st.binary(max_size=60) | INVENTORIES)
def test_no_inventory_file_raises_anything_but_the_error_of_the_kit(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "inventory.json"
    file.write_bytes(content)
    with suppress(InvalidArgumentError):
        describe(open_hardware([], file, tmp_path).gather(), "pc1")


def test_a_disk_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="--disk: there is no disk"):
        open_hardware([tmp_path / "none"], None, tmp_path)


def test_a_machine_on_named_disks_reaches_no_others(tmp_path: Path) -> None:
    mine, second, other = (disk(tmp_path / name) for name in ("mine", "second", "other"))
    disks = Disks(named=[mine, second])
    assert [each.path for each in disks.all()] == [mine, second]
    assert disks.find("system").path == mine
    assert disks.erasable(str(second)).path == second
    with pytest.raises(StepError, match="none of the disks that the agent was told to use"):
        disks.find(str(other))
    with pytest.raises(StepError, match="is protected"):
        disks.erasable(str(second), protect=[str(second)])


def test_a_rehearsed_machine_remembers_what_it_has_started(tmp_path: Path) -> None:
    first = Rehearsal(tmp_path / "state", None)
    assert first.environment == "boot"
    same = Rehearsal(tmp_path / "state", "installed")
    assert (same.environment, same.boot_id) == ("boot", first.boot_id)


async def test_a_rehearsed_machine_that_restarts_has_started_anew(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, "boot")
    before = machine.boot_id
    assert await machine.restart("installed")
    assert machine.boot_id != before
    assert Rehearsal(tmp_path, None).environment == "installed"


@pytest.mark.parametrize(
    ("mounts", "environment"),
    [
        ("proc /proc proc rw 0 0\n/dev/sda2 / ext4 rw 0 0\n", "installed"),
        ("rootfs / rootfs rw 0 0\n", "boot"),
        ("none / tmpfs rw 0 0\n", "boot"),
    ],
)
def test_a_boot_environment_runs_from_memory(mounts: str, environment: str) -> None:
    assert _environment_of(mounts) == environment


def programs(directory: Path, script: str) -> str:
    """Returns a PATH with nothing on it but a harmless `reboot`, and one that systemd would have."""
    for name in ("reboot", "systemctl"):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return str(directory)


async def test_a_computer_is_restarted_by_its_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, f"echo restarted > {tmp_path}/done"))
    assert not await Computer("boot").restart("installed")
    assert (tmp_path / "done").read_text() == "restarted\n"


async def test_a_computer_that_cannot_restart_itself_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, "echo must be superuser >&2; exit 1"))
    with pytest.raises(FailedPreconditionError, match=r"must be superuser.*restart it by hand"):
        await Computer("boot").restart("installed")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(FailedPreconditionError, match="has no program"):
        await Computer("boot").restart("installed")
