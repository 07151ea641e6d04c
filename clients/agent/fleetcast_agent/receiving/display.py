"""How a reception looks to a person: a bar on a terminal, plain lines elsewhere; and its summary."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from fleetcast_kit.values.printable import printable
from fleetcast_kit.values.rates import format_rate

from fleetcast_agent.receiving.messages import Assignment, Totals, Waiting
from fleetcast_agent.receiving.receive import ReceiveSummary

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_SECONDS = 5.0


class Display:
    """Shows a reception on standard error."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_waiting = ""
        self._line_at = 0.0
        self._rate = _Rate()

    def waiting(self, waiting: Waiting) -> None:
        """Say why the session waits, when that changes."""
        text = waiting.reason or "waiting for the session to start"
        if waiting.min_clients:
            text += f" ({waiting.joined_count} of {waiting.min_clients} machines)"
        if text != self._last_waiting:
            self._last_waiting = text
            self.noticed(f"{waiting.session.removeprefix('sessions/')}: {text}")

    def assigned(self, assignment: Assignment) -> None:
        """Begin to show progress."""
        self.noticed(f"receiving {assignment.image.removeprefix('images/')} from {assignment.sender_address}")
        if sys.stderr.isatty():
            self._progress, self._task = _bar(assignment.size_bytes)
            self._progress.start()

    def progressed(self, totals: Totals) -> None:
        """Show how far it is."""
        rate = self._rate.update(totals.written_bytes, time.monotonic())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=totals.written_bytes, rate=format_rate(rate * 8))
        elif time.monotonic() - self._line_at >= _LINE_SECONDS and totals.size_bytes:
            self._line_at = time.monotonic()
            percent = 100 * totals.written_bytes / totals.size_bytes
            self.noticed(f"{percent:5.1f} % written, {format_rate(rate * 8)}, {totals.lost_datagram_count} losses")

    def noticed(self, sentence: str) -> None:
        """Show a sentence."""
        if self._progress is not None:
            self._progress.console.print(sentence, markup=False, soft_wrap=True, highlight=False)
        else:
            print(printable(sentence), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._progress is not None:
            self._progress.stop()


def _bar(total_bytes: int) -> tuple[Progress, TaskID]:
    """Returns a progress bar on standard error and its task."""
    from rich.console import Console  # noqa: PLC0415 - 0.1 s that machines without a terminal save
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    return progress, progress.add_task("receiving", total=total_bytes, rate="")


class _Rate:
    """A smoothed rate."""

    def __init__(self) -> None:
        self._bytes = 0
        self._at: float | None = None
        self._value = 0.0

    def update(self, total: int, now: float) -> float:
        if self._at is not None and now > self._at:
            fresh = (total - self._bytes) / (now - self._at)
            self._value = fresh if not self._value else 0.6 * self._value + 0.4 * fresh
        self._bytes, self._at = total, now
        return self._value


def print_summary(summary: ReceiveSummary, *, as_json: bool) -> None:
    """Print how the image was received, to standard output."""
    totals = summary.totals
    if as_json:
        fields = {
            "image": summary.image,
            "session": summary.session,
            "output": summary.output,
            "verified": True,
            "seconds": round(summary.seconds, 3),
            "goodput_bits_per_second": round(summary.goodput_bytes_per_second * 8),
            **{name: value for name, value in vars(totals).items() if name != "elapsed_seconds"},
            "cpu_seconds": round(summary.cpu_seconds, 3),
            "peak_memory_bytes": summary.peak_memory_bytes,
        }
        print(json.dumps(fields))
        return
    lines = [
        f"{summary.image} is verified and on {summary.output}",
        f"  {totals.size_bytes} bytes in {summary.seconds:.1f} s, {format_rate(summary.goodput_bytes_per_second * 8)}",
        f"  {totals.multicast_bytes} bytes by multicast, {totals.unicast_bytes} by unicast, {totals.held_bytes} held",
        f"  {totals.lost_datagram_count} datagrams lost on the way, {totals.overflow_datagram_count} in this machine, "
        f"{totals.recovered_symbol_count} symbols rebuilt",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
