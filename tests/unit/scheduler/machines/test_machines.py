from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_scheduler.machines.domain.collection import Rule
from fleetcast_scheduler.machines.domain.machine import (
    Disk,
    Inventory,
    Machine,
    MachineState,
    RegistrationAction,
    RegistrationPolicy,
    agreement,
    mac_address,
    read_csv,
    resemblance,
)
from fleetcast_scheduler.machines.domain.registration import approved, is_other_hardware, register
from hypothesis import given
from hypothesis import strategies as st

from tests.support.refusals import refusal_of

UUID = "4c4c4544-0042-3010-8053-b7c04f4a3233"
MAC = "aa:bb:cc:00:00:01"
INVENTORY = Inventory(smbios_uuid=UUID, serial_number="B0SJ23", mac_addresses=(MAC,), model="OptiPlex 7010")
NEW = Machine(name="machines/new", create_time=1.0, display_name="pc-1", inventory=INVENTORY)
ACCEPT = RegistrationPolicy()


def expected(**identifiers: object) -> Machine:
    return Machine(
        name="machines/expected-1",
        create_time=0.0,
        display_name="Reception",
        state=MachineState.EXPECTED,
        inventory=Inventory(**identifiers),  # type: ignore[arg-type]
        variables={"room": "1"},
    )


def test_an_imported_machine_is_recognised_by_two_identifiers() -> None:
    record = expected(serial_number="b0sj23 ", mac_addresses=(MAC,))
    registered = register(NEW, [record], ACCEPT, known=None)
    assert registered is not None
    assert registered.replaces == record.name
    assert registered.machine.name == NEW.name
    assert registered.machine.display_name == "Reception"
    assert registered.machine.variables == {"room": "1"}
    assert registered.machine.state is MachineState.APPROVED


def test_one_identifier_alone_only_makes_a_suggestion() -> None:
    record = expected(serial_number="other", mac_addresses=(MAC,))
    registered = register(NEW, [record], ACCEPT, known=None)
    assert registered is not None
    assert not registered.replaces
    assert registered.machine.state is MachineState.HELD
    assert registered.machine.resembles == record.name
    assert registered.machine.held_reason == "has the same MAC address as machines/expected-1"


def test_a_machine_cannot_become_one_that_has_registered_by_saying_so() -> None:
    victim = replace(NEW, name="machines/victim", variables={"password": "x"})
    registered = register(NEW, [victim], ACCEPT, known=None)
    assert registered is not None
    assert registered.machine.state is MachineState.HELD
    assert registered.machine.variables == {}


def test_two_records_that_fit_equally_well_are_left_to_an_operator() -> None:
    one = expected(serial_number="B0SJ23", mac_addresses=(MAC,))
    registered = register(NEW, [one, replace(one, name="machines/expected-2")], ACCEPT, known=None)
    assert registered is not None
    assert registered.machine.state is MachineState.HELD


@pytest.mark.parametrize(
    ("action", "state"),
    [
        (RegistrationAction.ACCEPT, MachineState.APPROVED),
        (RegistrationAction.HOLD, MachineState.HELD),
        (RegistrationAction.REFUSE, None),
    ],
)
def test_an_unknown_machine_is_treated_as_the_policy_says(
    action: RegistrationAction, state: MachineState | None
) -> None:
    registered = register(NEW, [], RegistrationPolicy(action, "collections/new"), known=None)
    assert (registered.machine.state if registered else None) is state
    if state is MachineState.APPROVED:
        assert registered is not None
        assert registered.collection == "collections/new"


def test_a_known_machine_stays_what_it_is_whatever_the_policy() -> None:
    registered = register(NEW, [], RegistrationPolicy(RegistrationAction.REFUSE), known=NEW)
    assert registered is not None
    assert registered.machine == NEW


# Identity bound to hardware

OTHER = Inventory(
    smbios_uuid="4c4c4544-0042-3510-8051-b4c04f363732",
    serial_number="PC0002",
    mac_addresses=("d8:9e:f3:00:01:02",),
    model="Latitude",
)
THIRD = Inventory(smbios_uuid="3", serial_number="PC0003", mac_addresses=("d8:9e:f3:00:01:03",))


def again(said: Inventory, *others: Machine, known: Machine = NEW) -> Machine:
    """Returns what becomes of a known machine that says this of itself now."""
    registered = register(replace(known, inventory=said), others, ACCEPT, known=known)
    assert registered is not None
    assert not registered.replaces
    return registered.machine


def test_a_known_machine_on_other_hardware_is_held_and_stays_what_it_was() -> None:
    held = again(OTHER)
    assert held.state is MachineState.HELD
    assert (held.inventory, held.claimed) == (INVENTORY, OTHER)
    assert "other hardware (serial number pc0002, not b0sj23)" in held.held_reason
    assert again(INVENTORY, known=held).state is MachineState.HELD  # the first one comes back: both are held
    assert (
        again(replace(OTHER, serial_number="PC0003", mac_addresses=("d8:9e:f3:00:01:03",), smbios_uuid="3"), known=held)
        == held
    )


def test_an_approved_machine_is_what_it_says_and_the_first_hardware_is_held_then() -> None:
    there = approved(again(OTHER))
    assert (there.state, there.inventory, there.claimed, there.held_reason) == (MachineState.APPROVED, OTHER, None, "")
    assert again(OTHER, known=there).state is MachineState.APPROVED
    assert again(INVENTORY, known=there).state is MachineState.HELD


@pytest.mark.parametrize(
    "said",
    [
        replace(INVENTORY, mac_addresses=("00:11:22:33:44:55",)),
        replace(INVENTORY, smbios_uuid=OTHER.smbios_uuid, serial_number=OTHER.serial_number),
        replace(INVENTORY, serial_number="", smbios_uuid=""),
        replace(INVENTORY, smbios_uuid="", serial_number="", mac_addresses=()),
    ],
    ids=["another adapter", "another board", "an agent that may not read the firmware", "nothing is known now"],
)
def test_a_machine_of_which_a_part_is_the_same_is_the_same(said: Inventory) -> None:
    machine = again(said)
    assert machine.state is MachineState.APPROVED
    assert len(machine.inventory.identifiers()) == 3
    assert is_other_hardware(
        machine.inventory, replace(OTHER, mac_addresses=("d8:9e:f3:00:01:09",), smbios_uuid="9", serial_number="9")
    )


def test_a_known_machine_that_says_identifiers_of_another_one_is_held_and_no_rule_takes_it_for_that() -> None:
    victim = replace(NEW, name="machines/victim", inventory=OTHER, variables={"domain_password": "x"})
    for said in (OTHER, replace(INVENTORY, serial_number="PC0002"), replace(INVENTORY, smbios_uuid=OTHER.smbios_uuid)):
        held = again(said, victim)
        assert held.state is MachineState.HELD
        assert not Rule('machine.model == "Latitude"').holds(held)
        assert held.variables == {}
    imported = expected(serial_number="PC0010", smbios_uuid="x-10")
    assert again(replace(INVENTORY, serial_number="PC0010"), imported).state is MachineState.HELD


def test_identifiers_that_were_shared_when_an_operator_approved_it_hold_it_no_more() -> None:
    twin = replace(NEW, name="machines/twin")
    assert again(INVENTORY, twin).state is MachineState.APPROVED


def test_an_imported_record_waits_for_approval_where_the_policy_holds_imported_machines() -> None:
    record = expected(serial_number="B0SJ23", mac_addresses=(MAC,))
    held = register(NEW, [record], RegistrationPolicy(imported=RegistrationAction.HOLD), known=None)
    assert held is not None
    assert not held.replaces
    assert (held.machine.state, held.machine.resembles, held.machine.variables) == (MachineState.HELD, record.name, {})
    assert "which was imported: approve it as that one" in held.machine.held_reason
    for action in RegistrationAction:  # elsewhere the import is what lets machines in
        taken = register(NEW, [record], RegistrationPolicy(action), known=None)
        assert taken is not None
        assert taken.replaces == record.name


def test_one_network_adapter_for_many_laptops_makes_no_resemblance() -> None:
    second = replace(INVENTORY, smbios_uuid=OTHER.smbios_uuid, serial_number=OTHER.serial_number)
    assert resemblance(second, INVENTORY) == []
    registered = register(replace(NEW, inventory=second), [replace(NEW, name="machines/1")], ACCEPT, known=None)
    assert registered is not None
    assert registered.machine.state is MachineState.APPROVED
    assert again(INVENTORY, replace(NEW, name="machines/2", inventory=second)).state is MachineState.APPROVED
    no_serial = replace(second, serial_number="")
    assert resemblance(no_serial, INVENTORY) == ["MAC address"]
    lines = f"a,{UUID},S1,{MAC}\nb,{OTHER.smbios_uuid},S2,{MAC}\n"
    assert len(read_csv("display_name,smbios_uuid,serial_number,mac_addresses\n" + lines)) == 2


def test_what_makers_leave_blank_identifies_nothing() -> None:
    blank = Inventory(
        smbios_uuid="03000200-0400-0500-0006-000700080009", serial_number="To Be Filled By O.E.M.", mac_addresses=()
    )
    assert blank.identifiers() == {}
    assert agreement(blank, blank) == []


@pytest.mark.parametrize("text", ["AA-BB-CC-00-00-01", "aabb.cc00.0001", " aa:bb:cc:00:00:01 "])
def test_mac_addresses_are_read_in_the_usual_forms(text: str) -> None:
    assert mac_address(text) == MAC


def test_a_csv_is_read_with_its_variables_and_collections() -> None:
    text = (
        "\ufeffdisplay_name,serial_number,mac_addresses,collection,variable:room\n"
        f'"Lab, left",S1,{MAC} aa:bb:cc:00:00:02,collections/lab,5\n'
        "plain,S2,aa-bb-cc-00-00-03,,\n"
    )
    first, second = read_csv(text)
    assert first.display_name == "Lab, left"
    assert first.inventory.mac_addresses == (MAC, "aa:bb:cc:00:00:02")
    assert (first.collection, first.variables) == ("collections/lab", {"room": "5"})
    assert (second.collection, second.variables) == ("", {})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the CSV is empty"),
        ("name,serial_number\n", "unknown column 'name'"),
        (f"display_name,mac_addresses\na,{MAC}\n", "line 2 has fewer than two"),
        ("serial_number,mac_addresses\nS,xx\n", "line 2: 'xx' is not a MAC address"),
        (f"serial_number,mac_addresses\nS,{MAC},3\n", "line 2 has more fields"),
        (f"display_name,serial_number,mac_addresses\na,S,{MAC}\nb,T,{MAC}\n", "'b' and 'a' have the same MAC address"),
        (f"serial_number,mac_addresses,variable:1x\nS,{MAC},y\n", "'1x' is not the name of a variable"),
        ('serial_number,mac_addresses\n"S,aa', "is not CSV"),
    ],
)
def test_a_wrong_csv_is_refused_as_a_whole_with_its_line(text: str, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=part):
        read_csv(text)


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise_anything_else(text: str) -> None:
    for prefix in ("", "serial_number,mac_addresses,smbios_uuid\n"):
        refusal = refusal_of(partial(read_csv, prefix + text))
        assert refusal is None or refusal.field == "csv"


MACHINE = Machine(
    name="machines/a",
    create_time=0.0,
    display_name="pc-7",
    inventory=replace(INVENTORY, memory_bytes=16 * 2**30, processor_count=4, disks=(Disk("/dev/sda", size_bytes=500),)),
    variables={"room": "5"},
)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ('machine.model.startsWith("OptiPlex") && machine.memory_bytes >= 8 * 1073741824', True),
        ('machine.model == "Latitude"', False),
        ("machine.disks.exists(disk, disk.size_bytes >= 500)", True),
        ('machine.mac_addresses.exists(mac, mac.startsWith("aa:bb"))', True),
        ('machine.variables.room == "5"', True),
        ('machine.variables.floor == "5"', False),
        ('machine.display_name.matches("^pc-[0-9]+$")', True),
        ("machine.disks[0].size_bytes > 100", True),
        ('machine.name == "pc-7"', True),
        ('machine.name in ["machines/a"]', True),
        ('machine.name != "pc-7"', False),
        ('machine.serial == "B0SJ23" && machine.serial_number == machine.serial', True),
        ('machine.uuid.startsWith("4c4c") && machine.uuid == machine.smbios_uuid', True),
        ("machine.cpu_count == 4 && machine.processor_count == 4", True),
        ('machine.adapters.exists(adapter, adapter.mac == "aa:bb:cc:00:00:01")', True),
        ('machine.disks.exists(disk, disk.path == "/dev/sda" && disk.device == disk.path)', True),
    ],
)
def test_rules_select_machines_by_their_hardware(rule: str, holds: bool) -> None:
    assert Rule(rule).holds(MACHINE) is holds


def test_a_rule_that_an_older_program_stored_selects_what_it_did() -> None:
    assert Rule('machine.model.startsWith("OptiPlex") || machine.colour == "red"', stored=True).holds(MACHINE)


def test_a_rule_that_cannot_be_computed_for_a_machine_does_not_hold_for_it() -> None:
    diskless = replace(MACHINE, inventory=replace(MACHINE.inventory, disks=()))
    assert not Rule("machine.disks[0].size_bytes >= 0").holds(diskless)


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("machine.", "cannot be read"),
        (
            "machine.colour == 'red'",
            "names 'colour', which a machine does not have: it has adapters, architecture, code",
        ),
        ('machine.model == "X" && machine.serail == "Y"', "names 'serail'"),
        ('machine.model == "machine.colour" || machine . size > 3', "names 'size'"),
        ("machines.model == 'x'", "cannot be computed"),
        ("machine.model", "it must be true or false"),
        ("machine.model + 1 == 2", "cannot be computed"),
        ("x" * 5000, "4096 are the most"),
    ],
)
def test_a_wrong_rule_is_refused_when_it_is_written(rule: str, part: str) -> None:
    with pytest.raises(InvalidArgumentError, match=part):
        Rule(rule)
