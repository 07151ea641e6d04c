"""How far long work is: a bar on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fleetcast_cli.shell.text import format_bytes, format_percent, format_seconds, progress

LINE_SECONDS = 5.0
"""Between two lines of the same phase where there is no terminal."""


class WorkProgress:
    """Shows how much of each phase of one piece of work is done, counted in bytes or in `unit`."""

    def __init__(self, unit: str = "bytes") -> None:
        self._unit = unit
        self._console = progress()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("connecting", total=None, detail="")
        self._phase = ""
        self._phase_at = time.monotonic()
        self._line_at = 0.0

    def __enter__(self) -> Self:
        """Starts the display."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the display; a bar disappears."""
        self._bar.stop()

    def update(self, phase: str, done: int, total: int) -> None:
        """Shows that `done` of `total` are done in `phase`; a total below zero is not known."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._phase_at, self._line_at = phase, now, 0.0
            self._bar.reset(self._task, description=phase, total=None, detail="")
        detail = self._detail(done, total, now - self._phase_at)
        self._bar.update(self._task, completed=done, total=total if total >= 0 else None, detail=detail)
        if done and not self._console.is_terminal and now - self._line_at >= LINE_SECONDS:
            self._line_at = now
            self._console.print(f"{phase}: {detail}")

    def _detail(self, done: int, total: int, seconds: float) -> str:
        counted = format_bytes if self._unit == "bytes" else lambda count: f"{count:.0f} {self._unit}"
        parts = [f"{counted(done)} of {counted(total)}" if total >= 0 else counted(done)]
        if total > 0:
            parts.append(format_percent(done, total))
        if seconds >= 0.5:
            rate = done / seconds
            parts.append(f"{counted(rate)}/s")
            if total > done and rate > 0 and not self._console.is_terminal:
                parts.append(f"{format_seconds((total - done) / rate)} left")
        return ", ".join(parts)
