"""Images, their names and states, and what may be done with them in which state."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum, StrEnum

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError

from fleetcast_catalog.images.inspection.contents import NOT_LOOKED_INTO, ImageContents

CHUNK_BYTES = 1 << 20
MAX_IMAGE_BYTES = 2 << 40
"""2 TiB: 2 Mi chunks, for which an import keeps 46 bytes each, 97 MB in all."""

_SERIES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(r"sha256:[0-9a-f]{64}|importing-[0-9a-f]{32}")


class ImageState(StrEnum):
    """Life of an image version."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"
    """Shown to nobody: its chunks are being reclaimed."""


class ImageFormat(IntEnum):
    """What kind of file an image was imported from; the numbers are those of the API."""

    RAW = 1
    QCOW2 = 2
    VHDX = 3
    VMDK = 4
    WIM = 5
    ESD = 6
    VHD = 7
    VDI = 8
    QED = 9
    PARALLELS = 10
    QCOW = 11
    PARTCLONE = 12
    CLONEZILLA = 13
    FOG = 14
    ISO = 15
    """Of a file only: the image has the format of the WIM or ESD in it."""

    @property
    def label(self) -> str:
        """The format as people write it."""
        return "WIM" if self is ImageFormat.WIM else self.name.lower()

    @property
    def is_virtual_disk(self) -> bool:
        """True when the raw disk must be converted out of the file."""
        return self in _VIRTUAL_DISKS

    @property
    def is_windows_imaging(self) -> bool:
        """True for files that hold images of their own."""
        return self in {ImageFormat.WIM, ImageFormat.ESD}


_VIRTUAL_DISKS = {
    ImageFormat.QCOW2,
    ImageFormat.VHDX,
    ImageFormat.VMDK,
    ImageFormat.VHD,
    ImageFormat.VDI,
    ImageFormat.QED,
    ImageFormat.PARALLELS,
    ImageFormat.QCOW,
}


class ImageFileError(Exception):
    """What was given cannot be imported. The text continues a sentence that starts with the file's name."""

    def __init__(self, problem: str, *, reason: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.reason = reason
        """UPPER_SNAKE, such as IMAGE_TRUNCATED."""


def truncated(problem: str) -> ImageFileError:
    """Returns the error for a file that ends too early."""
    return ImageFileError(f"is truncated: {problem}", reason="IMAGE_TRUNCATED")


def corrupt(problem: str) -> ImageFileError:
    """Returns the error for a file that contradicts itself."""
    return ImageFileError(f"is corrupt: {problem}", reason="IMAGE_CORRUPT")


def unsupported(problem: str) -> ImageFileError:
    """Returns the error for a file that is sound but of no use here."""
    return ImageFileError(problem, reason="IMAGE_UNSUPPORTED")


@dataclass(frozen=True)
class WimImage:
    """One image inside a WIM or ESD file. Fields as in fleetcast.catalog.v1.WimImage."""

    index: int
    display_name: str = ""
    description: str = ""
    edition: str = ""
    architecture: str = ""
    languages: tuple[str, ...] = ()
    total_bytes: int = 0
    file_count: int = 0
    directory_count: int = 0
    version: str = ""
    bootable: bool = False


@dataclass(frozen=True)
class Image:
    """An image version. Fields as in fleetcast.catalog.v1.Image."""

    id: int
    """Grows with every import."""
    image: str
    version: str
    """What stands after the `@` of its name: the digest, or `importing-{id}`."""
    state: ImageState
    format: ImageFormat
    source_file: str
    create_time: datetime
    size_bytes: int = 0
    chunk_size_bytes: int = CHUNK_BYTES
    chunk_count: int = 0
    zero_chunk_count: int = 0
    stored_bytes: int = 0
    added_bytes: int = 0
    ready_time: datetime | None = None
    verify_time: datetime | None = None
    damaged_chunk_count: int = 0
    wim_images: tuple[WimImage, ...] = ()
    holders: tuple[str, ...] = ()
    contents: ImageContents = NOT_LOOKED_INTO
    owner: str = ""
    """The machine whose user state it is; empty for an image that is for any machine."""

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"images/{self.image}@{self.version}"

    @property
    def digest(self) -> str:
        """`sha256:…`, or empty while creating."""
        return self.version if self.version.startswith("sha256:") else ""

    def check_readable(self) -> None:
        """Checks that there is content.

        Raises:
            FailedPreconditionError: it is still being imported.
        """
        if self.state is ImageState.CREATING:
            raise FailedPreconditionError(
                f"{self.name} is still being imported: wait until it is ready", reason="IMAGE_NOT_READY"
            )

    def check_deployable(self) -> None:
        """Checks that somebody may start to depend on it.

        Raises:
            FailedPreconditionError: it is not READY.
        """
        self.check_readable()
        if self.state is not ImageState.READY:
            raise FailedPreconditionError(
                f"{self.name} has {self.damaged_chunk_count} damaged chunks: import the same file again to repair it",
                reason="IMAGE_NOT_READY",
            )

    def check_deletable(self) -> None:
        """Checks that nobody needs it.

        Raises:
            FailedPreconditionError: it is held, or still being imported.
        """
        if self.state is ImageState.CREATING:
            raise FailedPreconditionError(
                f"{self.name} is being imported: cancel the import instead", reason="IMAGE_NOT_READY"
            )
        if self.holders:
            raise FailedPreconditionError(
                f"{self.name} is in use by {listed(self.holders)}: end that first", reason="IMAGE_IN_USE"
            )

    def verified(self, damaged_chunk_count: int, now: datetime) -> Image:
        """Returns it as a verification at `now` leaves it."""
        state = ImageState.FAILED if damaged_chunk_count else ImageState.READY
        return replace(self, state=state, damaged_chunk_count=damaged_chunk_count, verify_time=now)


@dataclass(frozen=True)
class Hold:
    """A resource that needs an image version."""

    name: str
    """Resource name of the version."""
    holder: str


@dataclass(frozen=True)
class ImageName:
    """`images/{image}` or `images/{image}@{version}`."""

    image: str
    version: str = ""
    """Empty for the newest READY version."""

    @classmethod
    def parse(cls, name: str) -> ImageName:
        """Returns the parts of a resource name.

        Raises:
            InvalidArgumentError: it is not the name of an image.
        """
        collection, _, rest = name.partition("/")
        image, at, version = rest.partition("@")
        if collection != "images" or not _SERIES.fullmatch(image) or (at and not _VERSION.fullmatch(version)):
            raise InvalidArgumentError(
                f"{name!r} is not the name of an image: write images/NAME or images/NAME@sha256:DIGEST", field="name"
            )
        return cls(image, version)

    def __str__(self) -> str:
        return f"images/{self.image}" + (f"@{self.version}" if self.version else "")


def check_series(image: str, *, field: str) -> str:
    """Returns `image` if it can name a series of versions.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _SERIES.fullmatch(image):
        raise InvalidArgumentError(
            f"{image!r} cannot be the name of an image: use letters, digits, '.', '_' and '-', at most 63, "
            "starting with a letter or digit",
            field=field,
        )
    return image


def listed(names: Sequence[str]) -> str:
    """Returns the first few of `names` for a sentence, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
