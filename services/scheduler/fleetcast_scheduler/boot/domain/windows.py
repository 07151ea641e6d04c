"""Times in which the machines of a collection are admitted when they start from the network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import format_duration

DEFAULT_DURATION = timedelta(hours=2)
MAX_DURATION = timedelta(days=7)
MAX_EXPECTED = 100_000


@dataclass(frozen=True, slots=True)
class BootWindow:
    """A time in which the machines of one collection are admitted."""

    collection: str
    end_time: float
    expected_count: int = 0
    """0 if that is not known."""
    admitted: tuple[str, ...] = ()
    """The machines that came, in the order in which they came."""

    def is_open(self, now: float) -> bool:
        """Returns whether machines are admitted."""
        return now < self.end_time

    def has_room(self, machine: str) -> bool:
        """Returns whether a machine is one of those that are expected, by their number."""
        return not self.expected_count or machine in self.admitted or len(self.admitted) < self.expected_count

    def with_machine(self, machine: str) -> BootWindow:
        """Returns the window after a machine was admitted."""
        return self if machine in self.admitted else replace(self, admitted=(*self.admitted, machine))


def opened(collection: str, duration: timedelta | None, expected_count: int, now: float) -> BootWindow:
    """Returns a window that is open from now on.

    Raises:
        InvalidArgumentError: the duration or the number is out of range.
    """
    duration = DEFAULT_DURATION if duration is None else duration
    if not timedelta(minutes=1) <= duration <= MAX_DURATION:
        raise InvalidArgumentError(
            f"a time of {format_duration(duration)} is not possible: choose 1m to {MAX_DURATION.days}d",
            field="duration",
        )
    if not 0 <= expected_count <= MAX_EXPECTED:
        raise InvalidArgumentError(
            f"{expected_count} expected machines are not possible: choose 0 to {MAX_EXPECTED:,}", field="expected_count"
        )
    return BootWindow(collection, now + duration.total_seconds(), expected_count)


def admitting(windows: Iterable[BootWindow], collections: Iterable[str], machine: str, now: float) -> BootWindow | None:
    """Returns the open window that admits a machine of these collections; None if none does."""
    members = set(collections)
    fitting = (window for window in windows if window.collection in members)
    return next((window for window in fitting if window.is_open(now) and window.has_room(machine)), None)
