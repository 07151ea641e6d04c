"""Volumes that partclone saved, by itself or for Clonezilla and FOG: restored by `partclone.restore`."""

from __future__ import annotations

import struct
import tempfile
import threading
from pathlib import Path

from fleetcast_catalog.images.domain import MAX_IMAGE_BYTES, ImageFileError, corrupt, truncated, unsupported
from fleetcast_catalog.images.importing.sources import Source
from fleetcast_catalog.images.importing.tools import run, tool

MAGIC = b"partclone-image"
_HEADER_BYTES = 110
_TOOL = "partclone.restore"
# Where each version of partclone's header says the version, and the size of the volume.
_VERSIONS = {b"0001": (30, 40), b"0002": (30, 52)}


def require_tool() -> str:
    """Returns the path of `partclone.restore`.

    Raises:
        FailedPreconditionError: it is not installed.
    """
    return tool(_TOOL, package="partclone", purpose="volumes that partclone saved")


def volume_bytes(source: Source) -> int:
    """Returns the size of the volume that the bytes of `source`, which stays at its start, describe.

    Raises:
        ImageFileError: they are not partclone's, or of a version that nobody knows.
    """
    head = source.peek(_HEADER_BYTES)
    if not head.startswith(MAGIC):
        raise corrupt("it does not begin as partclone's images do")
    if len(head) < _HEADER_BYTES:
        raise truncated("the header of a partclone image is not whole")
    offset = 40 if head[30:34] == b"0001" else 52
    if head[30:34] not in _VERSIONS:
        raise unsupported(f"is a partclone image of version {head[30:34]!r}: only 0001 and 0002 are known")
    (size_bytes,) = struct.unpack_from("<Q", head, offset)
    if not 0 < size_bytes <= MAX_IMAGE_BYTES:
        raise corrupt(f"it describes a volume of {size_bytes} bytes")
    return int(size_bytes)


def restore(source: Source, target: Path, interrupted: threading.Event, *, offset_bytes: int = 0) -> None:
    """Writes a volume into the file `target`, which is large enough, `offset_bytes` from its beginning. Blocks.

    Raises:
        ImageFileError: the image is damaged or truncated.
        ImportInterruptedError: `interrupted` was set.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="partclone-") as directory:
        log = Path(directory) / "log"
        arguments: list[str | Path] = [
            require_tool(),
            "-s",
            "-",
            "-O",
            target,
            "-E",
            str(offset_bytes),
            "-C",
            "-B",
            "-L",
            log,
        ]
        ended = run(arguments, interrupted, stdin=source)
        if ended.code == 0:
            return
        text = log.read_text(errors="replace") if log.exists() else ended.said
    raise _failure(text)


def _failure(text: str) -> ImageFileError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "read ERROR" in text or "unable to read" in text:
        return truncated("partclone.restore found no more data before the volume was whole")
    return corrupt(f"partclone.restore refuses it ({lines[-1] if lines else 'it says nothing'})")
