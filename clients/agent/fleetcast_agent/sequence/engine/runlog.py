"""The log of a run: everything that steps say, secrets hidden."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from fleetcast_sequence import Redactor

TAIL_LINES = 40
"""Lines of output that a failure shows."""


def printable(text: str) -> str:
    """Returns `text` with what is no text in it, such as a byte of a file's name that is not UTF-8, shown escaped."""
    shown = os.fsencode(text) if _is_of_bytes(text) else text.encode(errors="backslashreplace")
    return shown.decode(errors="backslashreplace")


def _is_of_bytes(text: str) -> bool:
    """Returns whether the text can have come from bytes: a name as `os` gives it."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


class RunLog:
    """A log file that is added to."""

    def __init__(self, path: Path) -> None:
        """Takes the file's path."""
        self.path = path
        self.hide = Redactor()
        """Hides the secrets known so far in any text."""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def tail(self) -> str:
        """The last lines since the last `begin`."""
        return "\n".join(self._tail)

    def begin(self, secrets: Iterable[str]) -> None:
        """Begins a new tail; hides these secrets too."""
        self.hide.add(secrets)
        self._tail.clear()

    def __call__(self, text: str) -> None:
        """Writes a line."""
        text = printable(self.hide(text))
        self._tail.append(text)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text}\n")
