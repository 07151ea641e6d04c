"""Names of volumes and fields of machines that nothing gives, found when a file is checked."""

import pytest
from fleetcast_agent.sequence.machine.disks import Disks
from fleetcast_agent.sequence.machine.inventory import gather
from fleetcast_sequence import SequenceFileError, expand, parse
from fleetcast_sequence.machine import MACHINE_FIELDS
from fleetcast_sequence.ready import ready_sequences
from fleetcast_sequence.volumes import unnamed_volumes_of

HEAD = "name: a\nsteps:\n"
LAYOUT = "  - {name: P, type: partition-disk, with: {layout: uefi-windows}}\n"
OWN = "  - {name: P, type: partition-disk, with: {partitions: [{name: data}]}}\n"


def step(kind: str, arguments: str, when: str = "true") -> str:
    return f"  - {{name: S, type: {kind}, with: {{{arguments}}}, when: '{when}'}}\n"


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            LAYOUT + step("apply-operating-system", "image: x, volume: window"),
            "no volume 'window': did you mean 'windows'",
        ),
        (
            LAYOUT + step("format-volume", "volume: data, filesystem: ext4"),
            "name efi, msr, recovery, windows;",
        ),
        (OWN + step("copy-files", "volume: dat, destination: /x, content: x"), "did you mean 'data'?"),
        (OWN + step("run-command", "command: [ls], inside: dtaa"), "did you mean 'data'?"),
        (OWN + step("restart", "carry_state_to: root"), "the steps name data"),
        (
            step("apply-operating-system", "image: x, disk: system, root: system")
            + step("configure-boot", "volume: sytem"),
            "did you mean 'system'?",
        ),
    ],
)
def test_a_volume_that_no_step_names_is_a_problem_of_the_file(steps: str, problem: str) -> None:
    with pytest.raises(SequenceFileError) as caught:
        parse(HEAD + steps)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "steps",
    [
        LAYOUT + step("apply-operating-system", "image: x, volume: windows"),
        LAYOUT + step("format-volume", 'volume: "label:Data", filesystem: ext4'),
        LAYOUT + step("format-volume", "volume: /dev/sdb1, filesystem: ext4"),
        step("format-volume", "volume: windows, filesystem: ntfs"),  # whoever runs this as a child names it
        OWN + step("run-task-sequence", "sequence: other") + step("format-volume", "volume: x, filesystem: ntfs"),
        "  - {name: P, type: partition-disk, with: {layout: '{{ kind }}'}}\n"
        + step("format-volume", "volume: anything, filesystem: ntfs"),
    ],
)
def test_what_may_exist_is_none(steps: str) -> None:
    parse("name: a\nvariables: {kind: uefi-linux}\nsteps:\n" + steps)


def test_a_child_in_its_place_is_looked_at_too() -> None:
    child = step("format-volume", "volume: window, filesystem: ntfs").replace("name: S", "name: C")
    sequence = parse(HEAD + LAYOUT + "  - {name: R, type: run-task-sequence, with: {sequence: child}}\n")
    whole = expand(sequence, lambda _: parse("name: child\nsteps:\n" + child))
    assert unnamed_volumes_of(whole) == [("C", "there is no volume 'window': did you mean 'windows'?")]


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ('machine.firmwear == "uefi"', "a machine has no field 'firmwear': did you mean machine.firmware?"),
        ('machine["modell"] == "x"', "did you mean machine.model?"),
        ("machine.zzz > 1", "it has adapters, architecture"),
    ],
)
def test_a_field_that_no_machine_has_is_a_problem_of_the_file(when: str, problem: str) -> None:
    with pytest.raises(SequenceFileError) as caught:
        parse(HEAD + step("restart", "target: boot", when.replace("'", "''")))
    assert problem in str(caught.value)


def test_what_only_looks_like_a_field_is_none() -> None:
    parse(HEAD + step("restart", "target: boot", 'machine.model == "machine.foo" && machine.disks[0].size_bytes > 1'))


def test_the_list_of_fields_is_what_the_agent_says() -> None:
    assert gather(Disks()).keys() == MACHINE_FIELDS


def test_the_sequences_that_ship_name_their_volumes() -> None:
    assert [unnamed_volumes_of(parse(source)) for source in dict(ready_sequences()).values()] == [[]] * 4
