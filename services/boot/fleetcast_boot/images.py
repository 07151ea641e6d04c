"""Boot images on disk: a folder for each, named by its digest, with a description beside its files."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError

DESCRIPTION = "image.json"
ACTIVE = "active"
"""A symbolic link to the image that machines start."""

KERNEL, FIRST_STAGE, ROOT = "vmlinuz", "first.img", "root.squashfs"
LOADERS = "loaders"
"""The folder of the boot loaders, by the names that they are asked for."""


@dataclass(frozen=True, slots=True)
class BootImage:
    """One boot image."""

    digest: str
    """SHA-256 of the digests of its files: the same packages and agent give the same."""
    architecture: str
    """As Debian names it."""
    kernel_version: str
    agent_version: str
    created_at: str
    """RFC 3339, UTC."""
    files: dict[str, str]
    """SHA-256 of each file by its path below the folder."""
    sizes_bytes: dict[str, int]

    @property
    def size_bytes(self) -> int:
        """Of all that a machine loads: kernel, first stage and root."""
        return sum(self.sizes_bytes.get(name, 0) for name in (KERNEL, FIRST_STAGE, ROOT))


class BootImages:
    """The boot images of a data directory."""

    def __init__(self, data_directory: Path) -> None:
        self._directory = data_directory / "images"

    def folder(self, digest: str) -> Path:
        """Returns where the files of an image are."""
        return self._directory / digest

    def all(self) -> list[BootImage]:
        """Returns every image, the newest first."""
        found = [self._read(path) for path in self._directory.glob(f"*/{DESCRIPTION}") if not path.parent.is_symlink()]
        return sorted(found, key=lambda image: image.created_at, reverse=True)

    def active(self) -> BootImage | None:
        """Returns the image that machines start; None if there is none."""
        description = self._directory / ACTIVE / DESCRIPTION
        return self._read(description) if description.exists() else None

    def find(self, beginning: str) -> BootImage:
        """Returns the image whose digest begins so.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        found = [image for image in self.all() if image.digest.startswith(beginning)]
        if len(found) != 1:
            known = ", ".join(image.digest[:12] for image in self.all()) or "none; make one with: boot-image build"
            what = "several boot images begin" if found else "no boot image begins"
            raise NotFoundError(f"{what} with {beginning!r}; there are: {known}")
        return found[0]

    def activate(self, image: BootImage) -> None:
        """Lets machines start this image from now on. Those that load another one go on with it."""
        unfinished = self._directory / f".{ACTIVE}-{os.getpid()}"
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(image.digest)
        unfinished.rename(self._directory / ACTIVE)

    def add(
        self, built: Path, *, architecture: str, kernel_version: str, agent_version: str, created_at: str
    ) -> BootImage:
        """Takes a folder of files as an image; it is moved, and stays as it is from then on. Returns the image."""
        paths = sorted(path for path in built.rglob("*") if path.is_file())
        files = {path.relative_to(built).as_posix(): _sha256(path) for path in paths}
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        sizes = {name: (built / name).stat().st_size for name in files}
        image = BootImage(digest, architecture, kernel_version, agent_version, created_at, files, sizes)
        (built / DESCRIPTION).write_text(json.dumps(asdict(image), indent=2, sort_keys=True) + "\n")
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self.folder(digest).exists():
            built.rename(self.folder(digest))
        return image

    def _read(self, description: Path) -> BootImage:
        try:
            return BootImage(**json.loads(description.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise FailedPreconditionError(
                f"the boot image in {description.parent} cannot be read ({error}): remove that folder, and build anew"
            ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
