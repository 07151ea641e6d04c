from __future__ import annotations

import pytest
from fleetcast_sequence import (
    BrokenReferenceError,
    Group,
    Reference,
    Step,
    TaskSequence,
    Variables,
    canonical,
    digest,
    expand,
    from_canonical,
    owned_uploads,
    parse,
    pin,
    references,
    renamed,
    restored,
    schema,
    uploads,
)
from hypothesis import given
from hypothesis import strategies as st

SOURCE = """\
name: main
steps:
  - name: Image
    type: apply-operating-system
    with: {image: images/debian-12, volume: root}
  - name: Later
    steps:
      - name: Drivers
        type: apply-driver-package
        with: {volume: root, packages: [{package: x1, when: "machine.model == 'X1'"}, {package: rest}]}
      - {name: Child, type: run-task-sequence, with: {sequence: join, variables: {domain: example.org}}}
"""
CHILD = "name: join\nvariables: {domain: x, key: {secret: true}}\nsteps: [{name: Inner, type: gather-inventory}]\n"


def test_references_are_found_in_nested_arguments() -> None:
    assert references(parse(SOURCE)) == [
        Reference("image", "debian-12", "Image"),
        Reference("image", "x1", "Drivers"),
        Reference("image", "rest", "Drivers"),
        Reference("task-sequence", "join", "Child"),
    ]


def test_a_reference_says_where_it_stands() -> None:
    assert [reference.path for reference in references(parse(SOURCE))] == [
        ("steps", 0, "with", "image"),
        ("steps", 1, "steps", 0, "with", "packages", 0, "package"),
        ("steps", 1, "steps", 0, "with", "packages", 1, "package"),
        ("steps", 1, "steps", 1, "with", "sequence"),
    ]


CAPTURING = """\
name: capture
variables: {series: reference, site: null}
steps:
  - name: Save
    steps:
      - {name: State, type: capture-user-state, with: {volume: c, paths: [home], image: "state-{{ machine.serial }}"}}
      - {name: Kept, type: capture-user-state, with: {volume: c, paths: [home], store: kept}}
  - {name: Image, type: capture-image, with: {volume: c, image: "{{ series }}"}}
  - {name: Again, type: capture-image, with: {volume: c, image: "{{ series }}"}}
  - {name: Unknown yet, type: capture-image, with: {volume: c, image: "{{ last.message }}"}}
  - {name: Off, type: capture-image, disabled: true, with: {volume: c, image: off}}
"""


def test_uploads_are_named_as_written_or_as_a_machine_would_make_them() -> None:
    sequence = parse(CAPTURING)
    assert uploads(sequence) == ["state-{{ machine.serial }}", "{{ series }}", "{{ last.message }}"]
    context = {"machine": {"serial": "A1"}, "last": {}}
    variables = Variables(sequence.variables, {}, context=context)
    assert uploads(sequence, variables) == ["state-A1", "reference"]
    assert owned_uploads(sequence, variables) == ["state-A1"]
    assert restored(sequence, variables) == []


def test_what_a_sequence_restores_is_named_as_a_machine_would_make_it() -> None:
    step = "{name: Back, type: restore-user-state, with: {volume: c, image: 'state-{{ machine.serial }}'}}"
    sequence = parse(f"name: refresh\nsteps: [{step}]\n")
    assert restored(sequence) == ["state-{{ machine.serial }}"]
    variables = Variables(sequence.variables, {}, context={"machine": {"serial": "A1"}})
    assert restored(sequence, variables) == ["state-A1"]
    assert uploads(sequence, variables) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# one\nname: old # two\nsteps: []\n", "# one\nname: new # two\nsteps: []\n"),
        ('{"name":"old", steps: []}', '{"name": new, steps: []}'),
        ("name: |\n  old\nsteps: []", "name: new\nsteps: []"),
        ("name:\nsteps: []", "name: new\nsteps: []"),
        ("steps: [{name: old}]", "steps: [{name: old}]"),
    ],
)
def test_a_file_takes_another_name_and_nothing_else_changes(source: str, expected: str) -> None:
    assert renamed(source, "new") == expected


def test_pinning_puts_versions_in_their_place() -> None:
    pinned = pin(parse(SOURCE), lambda reference: f"{reference.name}@sha256:{'0' * 64}")
    first = pinned.steps[0]
    assert isinstance(first, Step)
    assert first.arguments["image"] == f"debian-12@sha256:{'0' * 64}"
    assert digest(pinned) != digest(parse(SOURCE))


def test_a_child_sequence_becomes_a_group() -> None:
    whole = expand(parse(SOURCE), lambda name: parse(CHILD))
    later = whole.steps[1]
    assert isinstance(later, Group)
    child = later.steps[1]
    assert isinstance(child, Group)
    assert [node.name for node in child.steps] == ["Set variables", "Inner"]
    assert whole.variables["key"].secret


def test_sequences_that_contain_each_other_are_refused() -> None:
    looping = parse("name: join\nsteps: [{name: x, type: run-task-sequence, with: {sequence: main}}]\n")
    with pytest.raises(BrokenReferenceError, match="main -> join -> main"):
        expand(parse(SOURCE), lambda name: looping)


def test_the_digest_is_of_the_meaning_and_not_of_the_layout() -> None:
    other = SOURCE.replace("  - name: Later\n    steps:", "  # a comment\n  - steps:").replace(
        "{sequence: join, variables: {domain: example.org}}}", "{variables: {domain: example.org}, sequence: 'join'}}"
    )
    other = other.rstrip() + "\n    name: Later\n"
    assert digest(parse(other)) == digest(parse(SOURCE))
    assert digest(parse(SOURCE.replace("rest", "others"))) != digest(parse(SOURCE))


def test_the_canonical_form_is_read_back() -> None:
    assert from_canonical(canonical(parse(SOURCE))) == parse(SOURCE)


names = st.text(min_size=1, max_size=50)
trees = st.recursive(
    st.builds(
        lambda name, when: Step(name=name, type="gather-inventory", when=when), names, st.none() | st.just("true")
    ),
    lambda inner: st.builds(
        lambda name, steps: Group(name=name, steps=steps), names, st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(trees, min_size=1, max_size=3))
def test_any_tree_has_a_canonical_form_that_is_read_back(steps: list[Step | Group]) -> None:
    sequence = TaskSequence(name="a", steps=steps)
    assert canonical(from_canonical(canonical(sequence))) == canonical(sequence)


def test_the_schema_offers_every_step_type_with_its_arguments() -> None:
    made = schema()
    assert "partition-disk" in made["$defs"]["Step"]["properties"]["type"]["enum"]
    assert "layout" in made["$defs"]["partition-disk"]["properties"]
