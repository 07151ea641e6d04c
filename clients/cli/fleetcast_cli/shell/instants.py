"""Instants of flags: what people type, as seen from here and now."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.times import local_zone, parse_time

from fleetcast_cli.shell.text import format_distance


@dataclass(frozen=True)
class Clock:
    """When and where a command is given."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    zone: tzinfo = field(default_factory=local_zone)

    def future(self, flag: str, text: str) -> datetime:
        """Returns the instant to come that `text` says.

        Raises:
            InvalidArgumentError: it says none, or a past one.
        """
        instant = parse_time(text, now=self.now, zone=self.zone, field=flag)
        if instant < self.now:
            raise InvalidArgumentError(
                f"{flag} {text!r} is in the past, {format_distance(instant - self.now)}: give a time to come",
                field=flag,
            )
        return instant

    def past(self, flag: str, text: str) -> datetime:
        """Returns the instant that `text` says; of several the last.

        Raises:
            InvalidArgumentError: it says none.
        """
        return parse_time(text, now=self.now, zone=self.zone, field=flag, past=True)
