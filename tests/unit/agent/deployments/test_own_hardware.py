"""Which machine a state directory belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fleetcast_agent.deployments.kept_runs import KeptRuns
from fleetcast_agent.deployments.orders import RunOrder
from fleetcast_agent.deployments.own_hardware import OwnHardware
from fleetcast_agent.deployments.registering import MachineDescription, joining_hardware
from fleetcast_agent.receiving.messages import HardwareIdentifiers
from fleetcast_agent.sequence.machine import inventory
from fleetcast_agent.sequence.machine.disks import Disks

PC = MachineDescription(
    display_name="pc1",
    time_zone="",
    smbios_uuid="4c4c4544-0042-3510-8051-b4c04f363731",
    serial_number="PC0001",
    mac_addresses=("d8:9e:f3:00:01:01",),
    manufacturer="",
    model="OptiPlex",
    architecture="x64",
    firmware="uefi",
    processor="",
    processor_count=4,
    memory_bytes=1 << 33,
    disks=(),
)
OTHER = replace(PC, smbios_uuid="4c4c4544-2", serial_number="PC0002", mac_addresses=("d8:9e:f3:00:01:02",))


def test_a_new_directory_is_nobodys_and_a_registered_one_is_that_of_its_machine(tmp_path: Path) -> None:
    own = OwnHardware(tmp_path)
    assert own.difference(PC) == ""
    own.keep(PC)
    assert own.difference(PC) == ""
    difference = own.difference(OTHER)
    assert "belongs to another machine" in difference
    assert "serial number pc0002, not pc0001" in difference


@pytest.mark.parametrize(
    "now",
    [
        replace(OTHER, mac_addresses=PC.mac_addresses),
        replace(OTHER, serial_number=PC.serial_number),
        replace(PC, smbios_uuid="", serial_number=""),
        replace(PC, smbios_uuid="", serial_number="", mac_addresses=()),
    ],
)
def test_a_part_that_is_the_same_or_unknown_makes_no_other_machine(tmp_path: Path, now: MachineDescription) -> None:
    OwnHardware(tmp_path).keep(PC)
    assert OwnHardware(tmp_path).difference(now) == ""


def test_what_makers_leave_blank_does_not_make_two_machines_one(tmp_path: Path) -> None:
    blank = replace(PC, smbios_uuid="03000200-0400-0500-0006-000700080009", serial_number="To be filled by O.E.M.")
    OwnHardware(tmp_path).keep(blank)
    assert OwnHardware(tmp_path).difference(replace(blank, mac_addresses=OTHER.mac_addresses))


def test_a_rehearsal_says_nothing_about_the_computer_it_runs_on(tmp_path: Path) -> None:
    OwnHardware(tmp_path, rehearsed=True).keep(PC)
    assert OwnHardware(tmp_path).difference(OTHER) == ""
    assert OwnHardware(tmp_path, rehearsed=True).difference(OTHER)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"identifiers": 3, "rehearsed": false}'])
def test_a_damaged_record_binds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "hardware.json").write_text(content)
    assert OwnHardware(tmp_path).difference(PC) == ""


def test_what_another_machine_had_begun_is_gone_with_its_key_and_its_logs_stay(tmp_path: Path) -> None:
    own = OwnHardware(tmp_path)
    own.keep(PC)
    for name in ("key.pem", "cert.pem", "ca.pem", "server.json"):
        (tmp_path / name).write_text("x")
    kept = KeptRuns(tmp_path).begin(RunOrder(run="deployments/d/runs/r", attempt=1))
    kept.log.write_text("line\n")
    (tmp_path / "runs/without-order").mkdir()
    (tmp_path / "task-sequence").mkdir()
    own.forget_identity()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "logs", "server.json"]
    assert [path.read_text() for path in (tmp_path / "logs").iterdir()] == ["line\n"]
    assert KeptRuns(tmp_path).unfinished() is None


def test_who_receives_says_which_computer_it_is_unless_its_machine_is_a_rehearsed_one(tmp_path: Path) -> None:
    found = inventory.gather(Disks())
    here = HardwareIdentifiers(found["uuid"], found["serial"], tuple(found["mac_addresses"]))
    assert joining_hardware(tmp_path) == here
    OwnHardware(tmp_path).keep(PC)
    assert joining_hardware(tmp_path) == here, "what is kept may have come with a copy"
    OwnHardware(tmp_path, rehearsed=True).keep(PC)
    assert joining_hardware(tmp_path) == HardwareIdentifiers()
