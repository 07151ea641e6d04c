"""Where a saved state is kept on its volume until it is put back."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.slices import in_slices

ARCHIVE = "state.tar"
_DIGEST = "state.sha256"
_WANTED = "state.wanted"
"""The originals are gone: nothing may take the place of this copy until it has been put back."""
_BLOCK_BYTES = 1 << 20


async def digest_of(control: Control, path: Path) -> str:
    """Returns the SHA-256 of a file."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[None]:
        with path.open("rb") as file:
            while content := file.read(_BLOCK_BYTES):
                digest.update(content)
                yield

    await in_slices(control, hashed())
    return digest.hexdigest()


def refuse_if_wanted(store: Path, name: str) -> None:
    """Does nothing if a new copy may take the place of what is in the store.

    Raises:
        StepError: what is there is the only copy of files that were erased.
    """
    if (store / ARCHIVE).exists() and (store / _WANTED).exists():
        raise StepError(
            f"/{name} holds a saved state whose originals have been erased and that was never put back: run "
            f"restore-user-state with this store first, or delete /{name} if nobody wants these files"
        )


def erases_originals(store: Path) -> None:
    """Notes, before a volume is emptied, that a directory which is kept holds what was saved from it."""
    if (store / ARCHIVE).is_file() and not (store / _WANTED).exists():
        (store / _WANTED).touch()
        os.sync()


def is_back(store: Path) -> None:
    """Notes that what is in the store has been put back."""
    (store / _WANTED).unlink(missing_ok=True)


def commit(partial: Path, digest: str) -> None:
    """Makes the copy count: from now on it survives the erase. A kill on the way leaves the one before it whole."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    digests = partial.with_name(_DIGEST)
    before = digests.read_text() if digests.exists() else ""
    _write(digests, f"{digest}\n{before}")
    partial.replace(partial.with_name(ARCHIVE))
    os.sync()
    _write(digests, f"{digest}\n")


def take_back(store: Path, partial: Path) -> None:
    """Removes what an attempt that did not succeed has written: the machine stays as it was."""
    partial.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        store.rmdir()


async def verify(control: Control, store: Path, name: str) -> None:
    """Does nothing if the store holds a whole copy.

    Raises:
        StepError: it holds none, or a damaged one.
    """
    try:
        wanted = (store / _DIGEST).read_text().split()
        found = await digest_of(control, store / ARCHIVE)
    except OSError as error:
        raise StepError(f"there is no saved state in {name}: {error.strerror}") from error
    if found not in wanted:
        raise StepError(f"the saved state in {name} is damaged: its digest is {found}, not {' or '.join(wanted)}")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
