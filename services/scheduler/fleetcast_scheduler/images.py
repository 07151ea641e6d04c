"""What an image is to a machine, and whether that fits where it is to be written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class ImageKind(StrEnum):
    """What an image is; the names are those of the catalog's API."""

    UNKNOWN = "UNSPECIFIED"
    """Nobody has looked."""
    DISK = "DISK"
    """A whole disk, with a partition table."""
    VOLUME = "VOLUME"
    """One file system, without a partition table."""
    WINDOWS_IMAGES = "WINDOWS_IMAGES"
    """A WIM or ESD file."""
    FILE = "FILE"
    """Any other file."""


class Medium(StrEnum):
    """What a machine writes an image to."""

    ANY = "UNSPECIFIED"
    """A file, or something that takes whatever the image is."""
    VOLUME = "VOLUME"
    DISK = "DISK"


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """An image version."""

    name: str
    """`images/{image}@sha256:{hex}`."""
    size_bytes: int
    is_wim: bool = False
    """True for a WIM or ESD file."""
    kind: ImageKind = ImageKind.UNKNOWN
    sector_size_bytes: int = 0
    """Size of the sectors of the disk that it was made for; 0 if nothing tells."""
    filesystem: str = ""
    """Of a volume."""
    owner: str = ""
    """The machine whose user state it is, `machines/{id}`; empty for an image that is for any machine."""


@dataclass(frozen=True, slots=True)
class DiskDemand:
    """What a step needs of the disk that it writes."""

    size_bytes: int
    sector_size_bytes: int = 0
    """0 if any will do."""


@dataclass(frozen=True, slots=True)
class DiskSize:
    """A disk of a machine."""

    size_bytes: int
    sector_size_bytes: int = 0
    """0 if the machine did not say."""


def unfit_for(image: PinnedImage, medium: Medium, sector_size_bytes: int = 0) -> str:
    """Returns why an image does not belong onto a medium, to continue a sentence that starts with its name; or nothing.

    `sector_size_bytes` is that of the medium, 0 if it is not known.
    """
    if medium is Medium.ANY:
        return ""
    if image.is_wim or image.kind is ImageKind.WINDOWS_IMAGES:
        return "is a WIM or ESD file: written to a disk it makes no system; a task sequence applies it to a volume"
    if medium is not Medium.DISK:
        return ""
    if image.kind is ImageKind.VOLUME:
        return f"has no partition table: it is one {image.filesystem} volume, and belongs onto a partition"
    if image.kind is ImageKind.FILE:
        return "has neither a partition table nor a file system: a disk with it is no system"
    if image.sector_size_bytes and sector_size_bytes and image.sector_size_bytes != sector_size_bytes:
        return (
            f"was made for a disk with sectors of {image.sector_size_bytes} bytes, and this one has sectors of "
            f"{sector_size_bytes}: its partition table would mean nothing there"
        )
    return ""


def unfit_disks(demands: Sequence[DiskDemand], disks: Iterable[DiskSize]) -> str:
    """Returns why none of a machine's disks can take what is to be written; nothing if one can, or if none is known."""
    known = [disk for disk in disks if disk.size_bytes]
    if not known:
        return ""
    largest = max(known, key=lambda disk: disk.size_bytes)
    needed_bytes = max((demand.size_bytes for demand in demands), default=0)
    large_enough = [disk for disk in known if disk.size_bytes >= needed_bytes]
    if not large_enough:
        return f"disk too small: {_size(largest.size_bytes)}, needs {_size(needed_bytes)}"
    wanted = {demand.sector_size_bytes for demand in demands if demand.sector_size_bytes}
    found = {disk.sector_size_bytes for disk in large_enough}
    if wanted and 0 not in found and not wanted & found:
        sectors, needed = (" or ".join(map(str, sorted(sizes))) for sizes in (found, wanted))
        return f"disk with sectors of {sectors} bytes: the image was made for sectors of {needed}"
    return ""


def _size(size_bytes: int) -> str:
    """Returns a size as makers of disks count: `119 GB`. Rounded so that two different ones do not look alike."""
    if size_bytes < 10**9:
        return f"{size_bytes / 10**6:.4g} MB"
    return f"{size_bytes / 10**9:.4g} GB"
