"""Whether the images of a task sequence fit its steps, and what they need of a machine's disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleetcast_sequence import Reference, Step
from fleetcast_sequence.expression import is_template
from fleetcast_sequence.model import Node, TaskSequence, walk
from fleetcast_sequence.steps.disk import LAYOUTS, Partition

from fleetcast_catalog.images.domain import Image
from fleetcast_catalog.images.inspection.contents import ContentKind
from fleetcast_catalog.task_sequences.domain import BrokenReference, DiskDemand

_APPLY = ("apply-operating-system", "apply-data-image")
_MAX_NAMES = 12


def misfits(sequence: TaskSequence, images: Mapping[str, Image]) -> Iterator[BrokenReference]:
    """Yields the steps of a sequence that cannot do with their image what they are to do.

    `images` are those that are known, by the name in the step without its collection.
    """
    for path, step in _steps(sequence.steps):
        name = str(step.arguments.get("image", "")).rpartition("/")[2]
        image = images.get(name)
        if step.type not in _APPLY or image is None:
            continue
        if problem := _misfit(step, image):
            yield BrokenReference(Reference("image", name, step.name, (*path, "with", "image")), problem)


def disk_demands(sequence: TaskSequence, images: Mapping[str, Image]) -> Iterator[DiskDemand]:
    """Yields what the steps of a whole sequence need of the disks that they write, as far as it can be told ahead."""
    for path, step in _steps(sequence.steps):
        if len(path) > 2 or step.when is not None:
            continue  # in a group or with a condition of its own it may be skipped where the disk is too small
        if step.type == "apply-operating-system" and "disk" in step.arguments:
            image = images.get(str(step.arguments.get("image", "")).rpartition("/")[2])
            if image is not None:
                yield DiskDemand(step.name, image.size_bytes, image.contents.sector_size_bytes)
        if step.type == "partition-disk":
            yield DiskDemand(step.name, _fixed_bytes(step))


def _steps(nodes: list[Node]) -> Iterator[tuple[tuple[str | int, ...], Step]]:
    for path, node in walk(nodes):
        if isinstance(node, Step) and not node.disabled:
            yield path, node


def _misfit(step: Step, image: Image) -> str:
    """Returns why a step cannot apply an image; empty if it can."""
    contents = image.contents
    if image.format.is_windows_imaging:
        if "disk" in step.arguments:
            return f"{image.image} is a WIM or ESD, which is applied to a volume: give `volume` in place of `disk`"
        return _wrong_index(step.arguments.get("index", 1), image)
    if "disk" not in step.arguments:
        if contents.kind is ContentKind.DISK:
            return f"{image.image} is an image of a whole disk, with a partition table: give `disk`, not `volume`"
        return ""
    if contents.kind in {ContentKind.VOLUME, ContentKind.FILE} and step.arguments.get("unpartitioned") is not True:
        what = f"is one {contents.filesystem} volume" if contents.filesystem else "holds no file system"
        return (
            f"{image.image} has no partition table and {what}: give `volume`, not `disk`, or `unpartitioned: true` if "
            "the disk is to hold just that"
        )
    return ""


def _wrong_index(index: object, image: Image) -> str:
    """Returns why there is no image of that index or name in a WIM; empty if there is, or if it is computed."""
    if is_template(index) or not image.wim_images:
        return ""
    if str(index).isdigit():
        if 1 <= int(str(index)) <= len(image.wim_images):
            return ""
    elif str(index).lower() in {inside.display_name.lower() for inside in image.wim_images}:
        return ""
    shown = [f"{inside.index} ({inside.display_name})" for inside in image.wim_images[:_MAX_NAMES]]
    return f"{image.image} has no image {index!r}: it has {', '.join(shown)}"


def _fixed_bytes(step: Step) -> int:
    """Returns the size of the partitions whose size does not depend on the disk."""
    layout, partitions = step.arguments.get("layout"), step.arguments.get("partitions")
    sizes: list[object] = []
    if isinstance(layout, str) and layout in LAYOUTS:
        sizes = [partition.size for partition in LAYOUTS[layout].partitions]
    elif isinstance(partitions, list) and "{{" not in str(partitions):
        sizes = [Partition.model_validate(each).size for each in partitions]
    return sum(size for size in sizes if isinstance(size, int))
