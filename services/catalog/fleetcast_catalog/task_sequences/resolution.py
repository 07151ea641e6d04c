"""Where the references of a task sequence lead: found, put in their places, and pinned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from fleetcast_sequence import Reference, TaskSequence, expand, pin, references
from fleetcast_sequence.references import MAX_CHILD_DEPTH
from fleetcast_sequence.volumes import unnamed_volumes_of

from fleetcast_catalog.images.domain import Image, ImageName
from fleetcast_catalog.task_sequences.domain import BrokenReference, ResolvedSequence, StoredSequence, TaskSequenceName
from fleetcast_catalog.task_sequences.image_steps import disk_demands, misfits

MAX_REFERENCES = 10_000
"""References that are followed in all: sequences that multiply each other end here, and no real one comes near."""
_MAX_SENTENCE_CHARS = 1200
"""Of the list of broken references: trailing metadata carry the sentence twice, and 8 kB in all."""


class Lookup(Protocol):
    """What there is, in one state of the catalog."""

    async def image(self, name: ImageName) -> Image:
        """Returns a version that may be deployed.

        Raises:
            NotFoundError: there is none.
            FailedPreconditionError: it is not READY.
        """
        ...

    async def task_sequence(self, name: TaskSequenceName) -> StoredSequence:
        """Returns a version.

        Raises:
            NotFoundError: there is none.
        """
        ...


async def broken_references(sequence: TaskSequence, lookup: Lookup) -> list[BrokenReference]:
    """Returns those references of `sequence` that lead nowhere, or to a child that has such references itself."""
    return await _Search(lookup).broken(sequence)


async def resolve(stored: StoredSequence, lookup: Lookup) -> ResolvedSequence:
    """Returns a version as a machine would run it now.

    Raises:
        FailedPreconditionError: references are broken; the sentence names them.
    """
    search = _Search(lookup)
    if broken := await search.broken(stored.sequence):
        raise _refused(stored, broken)
    whole = expand(stored.sequence, lambda name: search.children[name].sequence)
    if unnamed := unnamed_volumes_of(whole):
        sentences = [f"step {step!r}: {problem}" for step, problem in unnamed]
        raise FailedPreconditionError(
            f"{stored.version.name} cannot be deployed: {_cut(sentences, '; ')}", reason="BROKEN_REFERENCE"
        )
    pinned = pin(whole, lambda reference: search.images[reference.name].name)
    return ResolvedSequence(
        stored.version,
        pinned,
        tuple({image.name: image for image in search.images.values()}.values()),
        tuple({child.version.name: child.version for child in search.children.values()}.values()),
        tuple(disk_demands(whole, search.images)),
    )


class _Search:
    """Follows references, and remembers what it found."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._followed = 0
        self._inside: dict[str, list[Reference]] = {}
        self.images: dict[str, Image] = {}
        """By the name in the reference."""
        self.children: dict[str, StoredSequence] = {}
        """By the name in the reference."""

    async def broken(self, sequence: TaskSequence) -> list[BrokenReference]:
        """Follows the references of `sequence`; returns those that lead nowhere."""
        found = [await self._follow(reference, (sequence.name,)) for reference in references(sequence)]
        return [broken for broken in found if broken is not None] + list(misfits(sequence, self.images))

    async def _follow(self, reference: Reference, above: tuple[str, ...]) -> BrokenReference | None:
        """Returns why `reference`, in the innermost of the sequences `above`, leads nowhere; None if it does not."""
        try:
            self._followed += 1
            if self._followed > MAX_REFERENCES:
                raise FailedPreconditionError(f"more than {MAX_REFERENCES} references, children included")
            if reference.kind == "image":
                await self._image(reference.name)
                return None
            return await self._child(reference, above)
        except (NotFoundError, FailedPreconditionError, InvalidArgumentError) as error:
            return BrokenReference(reference, error.message)

    async def _image(self, name: str) -> None:
        if name not in self.images:
            self.images[name] = await self._lookup.image(ImageName.parse(f"images/{name}"))

    async def _child(self, reference: Reference, above: tuple[str, ...]) -> BrokenReference | None:
        name = TaskSequenceName.parse(f"taskSequences/{reference.name}")
        inside = (*above, name.task_sequence)
        if name.task_sequence in above:
            raise FailedPreconditionError(f"task sequences contain each other: {' -> '.join(inside)}")
        if len(above) > MAX_CHILD_DEPTH:
            raise FailedPreconditionError(
                f"more than {MAX_CHILD_DEPTH} task sequences inside each other: {' -> '.join(inside)}"
            )
        if reference.name not in self.children:
            self.children[reference.name] = await self._lookup.task_sequence(name)
            self._inside[reference.name] = references(self.children[reference.name].sequence)
        for inner in self._inside[reference.name]:
            if (broken := await self._follow(inner, inside)) is not None:
                problem = f"in {name.task_sequence}, step {inner.step!r}: {broken.problem}"
                return BrokenReference(reference, problem)
        misfit = next(misfits(self.children[reference.name].sequence, self.images), None)
        if misfit is not None:
            problem = f"in {name.task_sequence}, step {misfit.reference.step!r}: {misfit.problem}"
            return BrokenReference(reference, problem)
        return None


def _refused(stored: StoredSequence, broken: list[BrokenReference]) -> FailedPreconditionError:
    sentences = [f"step {each.reference.step!r}: {each.problem}" for each in broken]
    names = dict.fromkeys(f"{collection_of(each.reference)}/{each.reference.name}" for each in broken)
    return FailedPreconditionError(
        f"{stored.version.name} cannot be deployed: {_cut(sentences, '; ')}",
        reason="BROKEN_REFERENCE",
        metadata={"references": _cut(names, ", ")},
    )


def collection_of(reference: Reference) -> str:
    """Returns the collection of the resource that `reference` names."""
    return "images" if reference.kind == "image" else "taskSequences"


def _cut(texts: Iterable[str], separator: str) -> str:
    """Returns as many of `texts` as fit, and how many are left out."""
    shown: list[str] = []
    waiting = list(texts)
    while waiting and (not shown or len(separator.join([*shown, waiting[0]])) <= _MAX_SENTENCE_CHARS):
        shown.append(waiting.pop(0)[:_MAX_SENTENCE_CHARS])
    return separator.join(shown) + (f"{separator}and {len(waiting)} more" if waiting else "")
