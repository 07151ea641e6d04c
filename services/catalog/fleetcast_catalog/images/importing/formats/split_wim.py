"""Split WIM files (`install.swm`, `install2.swm`, ...): joined by wimlib to the WIM that they are parts of."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from fleetcast_catalog.images.domain import corrupt
from fleetcast_catalog.images.importing.tools import run, tool


def join(parts: Sequence[Path], target: Path, interrupted: threading.Event) -> None:
    """Writes the WIM that all `parts` together are to the new file `target`. Blocks.

    Raises:
        ImageFileError: a part is missing or damaged.
        FailedPreconditionError: wimlib is not installed.
    """
    program = tool("wimlib-imagex", package="wimtools", purpose="split WIM files")
    ended = run([program, "join", target, *parts], interrupted)
    if ended.code != 0:
        said = ended.last_line
        for part in parts:
            said = said.replace(str(part), part.name)
        raise corrupt(f"its parts cannot be joined ({said.removeprefix('[ERROR] ')})")
