from __future__ import annotations

import pytest
from fleetcast_sequence import (
    BrokenReferenceError,
    Group,
    Reference,
    Step,
    TaskSequence,
    canonical,
    digest,
    expand,
    from_canonical,
    parse,
    pin,
    references,
    schema,
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
