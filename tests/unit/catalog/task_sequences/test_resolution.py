from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from fleetcast_catalog.images.domain import Image, ImageFormat, ImageName, ImageState, WimImage
from fleetcast_catalog.images.inspection.contents import ContentKind, ImageContents
from fleetcast_catalog.task_sequences.convert import file_error, resolved_message
from fleetcast_catalog.task_sequences.domain import DiskDemand, StoredSequence, TaskSequenceName, TaskSequenceVersion
from fleetcast_catalog.task_sequences.resolution import broken_references, resolve
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, to_status
from fleetcast_sequence import (
    Group,
    SequenceFileError,
    TaskSequence,
    Variables,
    canonical,
    digest,
    from_canonical,
    parse,
    references,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 12, 1, tzinfo=UTC)
MAIN = """\
name: main
variables: {host: {required: true}, named: {required: true, default: pc}}
steps:
  - {name: System, type: apply-operating-system, with: {image: win11, volume: c}}
  - {name: Tools, type: download-package, with: {package: tools, path_variable: tools}}
  - {name: Join, type: run-task-sequence, with: {sequence: join}}
"""
JOIN = """\
name: join
variables: {password: {secret: true, required: true}}
steps:
  - {name: Drivers, type: apply-driver-package, with: {volume: c, packages: [{package: win11}, {package: drivers}]}}
  - {name: State, type: capture-user-state, with: {volume: c, paths: [home], image: "state-{{ machine.serial }}"}}
"""


_FORMATS = (ImageFormat.RAW, ImageFormat.WIM)


class Shelf:
    """What there is, in memory."""

    def __init__(self, images: tuple[str, ...], *sources: str) -> None:
        self._images = {
            name: Image(number, name, f"sha256:{number:064x}", ImageState.READY, _FORMATS[number % 2], "", NOW)
            for number, name in enumerate(images, 1)
        }
        self._sequences = {stored.version.task_sequence: stored for stored in map(self.stored, sources)}

    @staticmethod
    def stored(source: str) -> StoredSequence:
        sequence = parse(source)
        return StoredSequence(TaskSequenceVersion(1, sequence.name, digest(sequence), "", 1, "", NOW), sequence)

    async def image(self, name: ImageName) -> Image:
        if name.image not in self._images:
            raise NotFoundError(f"there is no image {name.image}")
        return self._images[name.image]

    async def task_sequence(self, name: TaskSequenceName) -> StoredSequence:
        if name.task_sequence not in self._sequences:
            raise NotFoundError(f"there is no task sequence {name.task_sequence}")
        return self._sequences[name.task_sequence]


def child(name: str, *inside: str) -> str:
    steps = [f"{{name: {each}, type: run-task-sequence, with: {{sequence: {each}}}}}" for each in inside]
    return f"name: {name}\nsteps: [{{name: x, type: gather-inventory}}, {', '.join(steps)}]\n"


async def test_everything_is_pinned_and_children_are_in_their_places() -> None:
    shelf = Shelf(("win11", "tools", "drivers"), JOIN)
    resolved = await resolve(Shelf.stored(MAIN), shelf)
    join = resolved.pinned.steps[2]
    assert isinstance(join, Group)
    assert [node.name for node in join.steps] == ["Drivers", "State"]
    assert [reference.name for reference in references(resolved.pinned)] == [
        f"{name}@sha256:{number:064x}" for name, number in (("win11", 1), ("tools", 2), ("win11", 1), ("drivers", 3))
    ]
    assert [image.image for image in resolved.images] == ["win11", "tools", "drivers"]
    assert [version.task_sequence for version in resolved.children] == ["join"]


async def test_the_message_says_all_that_a_deployment_asks() -> None:
    resolved = resolved_message(await resolve(Shelf.stored(MAIN), Shelf(("win11", "tools", "drivers"), JOIN)))
    sequence = from_canonical(resolved.canonical_form)
    assert canonical(sequence) == resolved.canonical_form
    assert digest(sequence) == resolved.digest
    assert list(resolved.required_variables) == ["host", "password"]
    assert list(resolved.uploads) == ["state-{{ machine.serial }}"]
    assert [(image.name.partition("@")[0], image.is_wim) for image in resolved.images] == [
        ("images/win11", True),
        ("images/tools", False),
        ("images/drivers", True),
    ]
    assert Variables(sequence.variables, {}).missing() == ["host", "password"]


async def test_pinning_what_is_pinned_changes_nothing() -> None:
    shelf = Shelf(("win11", "tools", "drivers"), JOIN)
    once = await resolve(Shelf.stored(MAIN), shelf)
    again = await resolve(StoredSequence(once.version, once.pinned), shelf)
    assert canonical(again.pinned) == canonical(once.pinned)


async def test_every_broken_reference_is_named_with_its_step() -> None:
    with pytest.raises(FailedPreconditionError) as raised:
        await resolve(Shelf.stored(MAIN), Shelf(("win11",), JOIN))
    assert raised.value.reason == "BROKEN_REFERENCE"
    assert raised.value.metadata == {"references": "images/tools, taskSequences/join"}
    assert "step 'Tools': there is no image tools" in raised.value.message
    assert "step 'Join': in join, step 'Drivers': there is no image drivers" in raised.value.message


async def test_sequences_that_contain_each_other_are_broken_references() -> None:
    shelf = Shelf((), child("a", "b"), child("b", "c"), child("c", "a"))
    broken = await broken_references(parse(child("a", "b")), shelf)
    assert [each.reference.name for each in broken] == ["b"]
    assert "a -> b -> c -> a" in broken[0].problem


async def test_sequences_nested_too_deep_are_broken_references() -> None:
    names = [f"s{number}" for number in range(12)]
    shelf = Shelf((), *(child(name, inner) for name, inner in pairwise(names)), child("s11"))
    assert "more than 8" in (await broken_references(parse(child("top", "s0")), shelf))[0].problem
    assert await broken_references(parse(child("top", "s5")), shelf) == []


async def test_sequences_that_multiply_each_other_end_somewhere() -> None:
    names = [f"s{number}" for number in range(8)]
    shelf = Shelf((), *(child(name, *[inner] * 6) for name, inner in pairwise(names)), child("s7"))
    assert "references" in (await broken_references(parse(child("top", "s0")), shelf))[0].problem


async def test_a_hundred_broken_references_fit_into_a_status() -> None:
    steps = "\n".join(
        f"  - {{name: S{number}, type: apply-data-image, with: {{image: i{number:060}, volume: c}}}}"
        for number in range(100)
    )
    with pytest.raises(FailedPreconditionError) as raised:
        await resolve(Shelf.stored(f"name: many\nsteps:\n{steps}\n"), Shelf(()))
    assert "more" in raised.value.message
    assert len(to_status(raised.value).SerializeToString()) < 3500


@given(st.integers(1, 50), st.text(min_size=1, max_size=30))
def test_the_problems_of_any_file_fit_into_a_status(count: int, key: str) -> None:
    source = "name: x\nsteps:\n" + f"  - {{name: a, type: t, {key!r}: 1}}\n" * count
    with pytest.raises(SequenceFileError) as raised:
        parse(source)
    error = file_error(raised.value)
    assert isinstance(error, InvalidArgumentError)
    assert error.metadata["problem_count"] == str(len(raised.value.problems))
    assert error.violations[0] == ("source", str(raised.value.problems[0])[:2000])
    assert len(to_status(error).SerializeToString()) < 3500


def test_names_of_versions_are_read_and_written() -> None:
    for text in ("taskSequences/a", f"taskSequences/a-1@sha256:{'0' * 64}"):
        assert str(TaskSequenceName.parse(text)) == text
    for text in ("a", "images/a", "taskSequences/", "taskSequences/A", "taskSequences/a@sha256:00", "taskSequences/a@"):
        with pytest.raises(InvalidArgumentError):
            TaskSequenceName.parse(text)


def test_a_pinned_sequence_is_still_a_correct_one() -> None:
    assert isinstance(from_canonical(canonical(parse(MAIN))), TaskSequence)


WIM_FILE = Image(
    1,
    "win11",
    f"sha256:{1:064x}",
    ImageState.READY,
    ImageFormat.WIM,
    "",
    NOW,
    wim_images=(WimImage(1, "Windows Setup"), WimImage(2, "Windows 11 Pro")),
)
DISK_IMAGE = replace(
    WIM_FILE,
    image="disk",
    format=ImageFormat.RAW,
    wim_images=(),
    size_bytes=128 * 10**9,
    contents=ImageContents(ContentKind.DISK, "gpt", 512),
)
VOLUME_IMAGE = replace(DISK_IMAGE, image="root", contents=ImageContents(ContentKind.VOLUME, filesystem="ext4"))


class Images(Shelf):
    """Images of which it is known what is inside."""

    def __init__(self, *sources: str) -> None:
        super().__init__((), *sources)
        self._images = {image.image: image for image in (WIM_FILE, DISK_IMAGE, VOLUME_IMAGE)}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("image: win11, volume: c, index: 3", "has no image 3: it has 1 (Windows Setup), 2 (Windows 11 Pro)"),
        ("image: win11, volume: c, index: Windows 11 Home", "has no image 'Windows 11 Home'"),
        ("image: win11, volume: c, index: windows 11 pro", ""),
        ("image: win11, volume: c, index: 2", ""),
        ("image: win11, volume: c, index: '{{ machine.model }}'", ""),
        ("image: win11, disk: system", "is a WIM or ESD, which is applied to a volume"),
        ("image: disk, volume: c", "is an image of a whole disk"),
        ("image: disk, disk: system", ""),
        ("image: root, volume: c", ""),
        ("image: root, disk: system", "has no partition table and is one ext4 volume"),
        ("image: root, disk: system, unpartitioned: true", ""),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
async def test_an_image_that_a_step_cannot_apply_is_found_before_a_disk_is_erased(
    arguments: str, problem: str, inside: bool
) -> None:
    source = f"name: apply\nsteps:\n  - {{name: A, type: apply-operating-system, with: {{{arguments}}}}}\n"
    shelf = Images(source, child("main", "apply"))
    stored = Shelf.stored(child("main", "apply") if inside else source)
    if not problem:
        assert await resolve(stored, shelf)
        return
    with pytest.raises(FailedPreconditionError) as caught:
        await resolve(stored, shelf)
    assert problem in caught.value.message
    assert caught.value.reason == "BROKEN_REFERENCE"
    assert "step 'A'" in caught.value.message


async def test_what_the_steps_need_of_a_disk_is_told_unless_they_may_be_skipped() -> None:
    source = """name: main
steps:
  - {name: P, type: partition-disk, with: {layout: uefi-windows}}
  - {name: D, type: apply-operating-system, with: {image: disk, disk: system}}
  - {name: W, type: apply-operating-system, with: {image: disk, disk: system}, when: machine.firmware == 'uefi'}
"""
    demands = (await resolve(Shelf.stored(source), Images(source))).disk_demands
    assert demands == (DiskDemand("P", 1316 << 20), DiskDemand("D", 128 * 10**9, 512))
