"""Values of enums, times and durations as they come in messages: all that a peer can put in there is checked here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from fleetcast_kit.errors import InvalidArgumentError


class _Names(Protocol):
    def keys(self) -> Sequence[str]: ...

    def values(self) -> Sequence[int]: ...


def enum_name(kind: _Names, number: int, prefix: str, field: str) -> str:
    """Returns the name of an enum's value without its prefix.

    Raises:
        InvalidArgumentError: this server does not know the value: it may be older than the sender of the message.
    """
    names = dict(zip(kind.values(), kind.keys(), strict=True))
    if number not in names:
        raise InvalidArgumentError(f"{field} is {number}: this server knows no such value", field=field)
    return names[number].removeprefix(prefix)


def seconds_of(message: Timestamp | Duration, field: str) -> float:
    """Returns a duration in seconds, or an instant in seconds since 1970.

    Raises:
        InvalidArgumentError: its numbers are outside what the type allows.
    """
    try:
        return message.ToMicroseconds() / 1e6
    except ValueError as error:
        raise InvalidArgumentError(
            f"{field} is {message.seconds} s and {message.nanos} ns: {error}", field=field
        ) from None


def duration(seconds: float | None) -> Duration | None:
    """Returns a duration as the API shows it."""
    if seconds is None:
        return None
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def timestamp(time: datetime | float | None) -> Timestamp | None:
    """Returns an instant, or seconds since 1970, as the API shows it; None if there is none."""
    if time is None:
        return None
    message = Timestamp()
    if isinstance(time, datetime):
        message.FromDatetime(time)
    else:
        message.FromMicroseconds(round(time * 1e6))
    return message
