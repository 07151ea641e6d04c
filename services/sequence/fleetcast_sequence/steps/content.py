"""Steps that bring content onto the machine and from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleetcast_sequence.model import RefersTo, Restores, SequenceModel, Uploads, VariableName

ImageName = Annotated[
    str, Field(pattern=r"^(images/)?[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@sha256:[0-9a-f]{64})?$"), RefersTo("image")
]
"""An image, at its newest version when it is deployed, or at the one given by its digest."""
SeriesName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""An image without a version."""
Delivery = Literal["multicast-only", "prefer-multicast", "unicast"]
_DELIVERY = "Whether the content comes with the session's multicast, or by unicast when that is not possible."
_VOLUME = "A volume named by `partition-disk`, a label like `label:Data`, or a device's path."


class _Applied(SequenceModel):
    image: ImageName = Field(description="The image, such as `debian-12`.")
    index: Annotated[int, Field(ge=1)] | str = Field(
        default=1, description="Index or name of the image inside a WIM or ESD."
    )
    volume: str | None = Field(default=None, description=_VOLUME)
    delivery: Delivery = Field(default="prefer-multicast", description=_DELIVERY)
    spool: str | None = Field(
        default=None,
        description="Volume that holds a WIM, which is applied once it is whole. By default the run's directory holds "
        "it, and a pipable one is applied while it arrives.",
    )


class ApplyOperatingSystem(_Applied):
    """Writes an image to a volume, which is erased, or a raw one to a disk; then grows it to the space there."""

    disk: str | None = Field(
        default=None, description="In place of `volume`, for a raw image of a disk; as in `partition-disk`."
    )
    unpartitioned: bool = Field(
        default=False, description="The image is to be written to the disk although it has no partition table."
    )
    grow: bool = Field(
        default=True,
        description="For an image of a disk: grow the partition with the system, and what is in it, to the end of the "
        "disk; partitions behind it move. For an image of a volume: grow its file system to the volume.",
    )
    root: str | None = Field(
        default=None, description="For an image of a disk: how later steps call the volume with the system."
    )

    @model_validator(mode="after")
    def _one_place(self) -> ApplyOperatingSystem:
        if (self.volume is None) == (self.disk is None):
            raise ValueError("give either `volume` or `disk`")
        return self


class ApplyDataImage(_Applied):
    """Writes a data image to a volume, as `apply-operating-system` does."""

    volume: str = Field(description=_VOLUME)
    grow: bool = Field(default=True, description="Grow a raw image's file system to the volume.")


class DownloadPackage(SequenceModel):
    """Fetches a package: an image of an archive (tar, zip) that is unpacked, or of any other file."""

    package: ImageName = Field(description="The image that is the package.")
    path_variable: VariableName = Field(description="Variable that receives the directory or file it was put at.")
    unpack: bool = Field(default=True, description="Unpack an archive.")
    delivery: Delivery = Field(default="prefer-multicast", description=_DELIVERY)


class CopyFiles(SequenceModel):
    """Puts files into the new system while it does not run."""

    volume: str = Field(description=_VOLUME)
    destination: Annotated[str, Field(min_length=1)] = Field(description="Path inside the volume, with `/`.")
    source: str | None = Field(
        default=None, description="File or directory on the running system, such as one from a package."
    )
    content: str | None = Field(
        default=None, description="In place of `source`: the text of the one file. May be a template."
    )
    template: bool = Field(default=False, description="The files of `source` are templates.")
    mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] | None = Field(
        default=None, description="Permissions of the files, such as `0644`; those of the source by default."
    )

    @model_validator(mode="after")
    def _one_source(self) -> CopyFiles:
        if (self.source is None) == (self.content is None):
            raise ValueError("give either `source` or `content`")
        return self


class CaptureImage(SequenceModel):
    """Makes an image of a volume or disk, and publishes it in the catalog as a new version."""

    image: Annotated[SeriesName, Uploads()] = Field(description="The image to add a version to.")
    volume: str | None = Field(default=None, description=_VOLUME)
    disk: str | None = Field(default=None, description="In place of `volume`: a whole disk, as a raw image.")
    format: Literal["wim", "raw"] = Field(
        default="wim", description="`raw` holds the used blocks; the others read as zeros."
    )
    spool: str | None = Field(
        default=None, description="Volume that holds the image until it is published; the run's directory by default."
    )
    exclude: list[str] = Field(
        default=[],
        description="Paths that a WIM leaves out, such as `/pagefile.sys`. What an agent keeps is always left out.",
    )

    @model_validator(mode="after")
    def _possible(self) -> CaptureImage:
        if (self.volume is None) == (self.disk is None):
            raise ValueError("give either `volume` or `disk`")
        if self.disk is not None and self.format == "wim":
            raise ValueError("a WIM holds a volume, not a disk: give `volume`, or `format: raw`")
        return self


class CaptureUserState(SequenceModel):
    """Saves chosen files with permissions, times and links, and verifies the copy against the originals."""

    volume: str = Field(description=_VOLUME)
    paths: Annotated[list[str], Field(min_length=1)] = Field(
        description="What to save: patterns inside the volume, such as `Users/*` or `home`."
    )
    exclude: list[str] = Field(default=[], description="Patterns of what to leave out, such as `*/AppData/Local/Temp`.")
    store: str | None = Field(
        default=None,
        description="Directory inside the same volume to keep the copy in; then erase with `format-volume: keep`.",
    )
    image: Annotated[SeriesName | None, Uploads(owned=True)] = Field(
        default=None, description="In place of `store`: publish the copy on the server under this name."
    )

    @model_validator(mode="after")
    def _one_store(self) -> CaptureUserState:
        if (self.store is None) == (self.image is None):
            raise ValueError("give either `store` or `image`")
        return self


class RestoreUserState(SequenceModel):
    """Puts saved files back, bit for bit, and verifies them."""

    volume: str = Field(description=_VOLUME)
    store: str | None = Field(default=None, description="Directory inside the volume that holds the copy.")
    image: Annotated[SeriesName | None, Restores()] = Field(
        default=None, description="In place of `store`: the name it was published under."
    )
    delete_store: bool = Field(default=False, description="Delete the `store` once everything is back and verified.")

    @model_validator(mode="after")
    def _one_store(self) -> RestoreUserState:
        if (self.store is None) == (self.image is None):
            raise ValueError("give either `store` or `image`")
        return self
