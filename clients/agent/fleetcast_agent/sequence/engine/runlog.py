"""The log of a run: everything that steps say, secrets hidden."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from fleetcast_sequence import Redactor

TAIL_LINES = 40
"""Lines of output that a failure shows."""


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
        text = self.hide(text)
        self._tail.append(text)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text}\n")
