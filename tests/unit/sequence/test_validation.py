from __future__ import annotations

import contextlib

import pytest
import yaml
from fleetcast_sequence import SequenceFileError, parse
from hypothesis import given
from hypothesis import strategies as st

GOOD = """\
name: lab-linux
variables:
  host_name: "PC-{{ machine.serial }}"
  password: {secret: true, required: true}
  count: 3
steps:
  - name: Check
    type: check-readiness
    with: {min_memory: 2GiB}
  - name: Disk
    when: machine.firmware == "uefi"
    continue_on_error: true
    steps:
      - name: Partition
        type: partition-disk
        with: {layout: uefi-linux}
        retry: 2
        timeout: 5m
      - name: Command
        type: run-command
        with:
          command: [echo, "{{ host_name }}"]
          environment: {PASSWORD: "{{ password }}"}
          success_codes: ["{{ count }}"]
"""


def problems(source: str) -> list[tuple[int, int, str]]:
    with pytest.raises(SequenceFileError) as caught:
        parse(source)
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


def test_a_good_file_becomes_its_model() -> None:
    sequence = parse(GOOD)
    assert [node.name for node in sequence.steps] == ["Check", "Disk"]
    assert sequence.variables["count"].type == "integer"
    assert sequence.variables["password"].secret


def test_every_error_is_found_at_its_line_and_column() -> None:
    source = """\
name: Bad Name
steps:
  - name: One
    type: partition-dsk
  - name: Two
    type: run-command
    retries: 3
    timeout: soon
    with:
      command: []
      comand: x
  - type: format-volume
    when: machine.firmware = "uefi"
    with: {volume: root, filesystem: btrfs}
  - name: Four
    type: set-variables
    with: {variables: {total: "{{ cuont }}"}}
"""
    found = problems(source)
    assert [(line, column) for line, column, _ in found] == [
        (1, 7),
        (4, 11),
        (7, 5),
        (8, 14),
        (10, 16),
        (11, 7),
        (12, 5),
        (13, 28),
        (14, 38),
        (17, 35),
    ]
    assert found[0][2].startswith("a name is made of lower-case letters, digits and hyphens")
    assert "did you mean 'partition-disk'?" in found[1][2]
    assert found[2][2] == "'retries' is not known here"
    assert "90s, 15m" in found[3][2]
    assert found[4][2] == "must not be empty"
    assert found[6][2] == "'name' is missing"
    assert "there is no variable 'cuont'" in found[9][2]


def test_a_key_that_stands_twice_is_an_error_at_the_second() -> None:
    assert problems("name: a\nname: b\nsteps:\n  - {name: x, type: gather-inventory}\n") == [
        (2, 1, "the key 'name' stands here twice")
    ]


def test_a_syntax_error_is_at_its_place() -> None:
    assert problems("name: a\nsteps: [}\n")[0][:2] == (2, 9)


@pytest.mark.parametrize(
    "source", ["", "# nothing\n", "\x00", "- a\n", "just text\n", "a: &x 1\nb: *x\n", "a: !!python/x 1"]
)
def test_what_is_no_sequence_is_refused(source: str) -> None:
    assert problems(source)


def test_deep_nesting_is_refused() -> None:
    assert problems("[" * 500 + "]" * 500)


def test_yes_is_a_word_and_not_a_truth() -> None:
    assert parse("name: yes\nsteps: [{name: no, type: gather-inventory}]\n").steps[0].name == "no"


def test_a_secret_in_a_command_line_is_refused() -> None:
    source = GOOD.replace("{{ host_name }}", "-p{{ password }}")
    ((line, _, message),) = problems(source)
    assert line == 22
    assert "process list" in message


def test_a_variable_that_would_show_a_secret_is_refused() -> None:
    source = GOOD.replace('"PC-{{ machine.serial }}"', '"{{ password }}"')
    ((line, column, message),) = problems(source)
    assert (line, column) == (3, 14)
    assert "declare 'host_name' as secret too" in message


def test_a_template_stands_for_a_value_of_any_type() -> None:
    parse(
        "name: a\nvariables: {n: 2}\nsteps: [{name: x, type: check-readiness, with: {min_memory: '{{ n * 1024 }}'}}]\n"
    )


def test_a_variable_set_by_a_step_needs_no_declaration() -> None:
    parse(
        "name: a\nsteps:\n"
        "  - {name: x, type: run-command, with: {command: [date], output_variable: today}}\n"
        "  - {name: y, type: run-command, with: {command: [echo, '{{ today }}']}, when: today != ''}\n"
    )


def test_names_bound_in_a_condition_are_no_variables() -> None:
    parse("name: a\nsteps: [{name: x, type: gather-inventory, when: 'machine.disks.exists(d, d.size_bytes > 9)'}]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("partition-disk, with: {}", "give either"),
        ("partition-disk, with: {partitions: [{name: a}, {name: b}]}", "only one partition"),
        ("partition-disk, with: {partitions: [{name: a}, {name: a, size: 1M}]}", "same name"),
        ("partition-disk, with: {table: mbr, partitions: [{name: a, type: msr}]}", "does not exist in a table"),
        ("partition-disk, with: {partitions: [{name: a, type: nonsense}]}", "is no partition type"),
        ("run-script, with: {script: a, file: b}", "either `script` or `file`"),
        ("capture-image, with: {image: a, disk: system}", "a WIM holds a volume"),
        ("apply-operating-system, with: {image: a}", "either `volume` or `disk`"),
        ("apply-driver-package, with: {volume: w, packages: [{package: a, when: 'a ='}]}", "is not an expression"),
        ("apply-windows-settings, with: {volume: w, computer_name: '1234567890'}", "pattern"),
        ("apply-network-settings, with: {volume: r, adapters: [{addresses: [192.0.2.1]}]}", "prefix length"),
    ],
)
def test_arguments_that_make_no_sense_are_explained(arguments: str, message: str) -> None:
    assert message in problems(f"name: a\nsteps: [{{name: x, type: {arguments}}}]\n")[0][2]


@given(st.text(alphabet="abc:-[]{}#&*!|>'\"%@`, \n\t?0éß{{}}", max_size=80))
def test_no_text_raises_anything_but_the_file_error(source: str) -> None:
    with contextlib.suppress(SequenceFileError):
        parse(source)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "steps", "type", "with", "when", "variables", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_no_data_raises_anything_but_the_file_error(data: object) -> None:
    with contextlib.suppress(SequenceFileError):
        parse(yaml.safe_dump(data, allow_unicode=True))
