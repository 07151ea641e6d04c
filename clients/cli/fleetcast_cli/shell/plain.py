"""Messages as plain data: what `--json` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from fleetcast_kit.values.printable import printable_json
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What JSON can say."""


class _Enumerator(Protocol):
    @property
    def name(self) -> str: ...


class _Enumeration(Protocol):
    """What two kinds of descriptor, in Python and in C, have in common."""

    @property
    def values_by_number(self) -> Mapping[int, _Enumerator]: ...


def to_plain(message: Message) -> dict[str, Plain]:
    """Returns every field of `message` under its own name, whether set or not.

    Numbers are numbers; maps are objects; enumerators are their names in lower case without the enumeration's prefix,
    `""` when unspecified; times are RFC 3339 in UTC, `null` when absent; a duration `d` becomes `d_seconds`; an absent
    message is `null`; bytes are hexadecimal.
    """
    plain: dict[str, Plain] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            plain[field.name] = {str(key): _value(None, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            plain[field.name] = [_value(field.enum_type, item) for item in value]
        elif field.message_type is not None and field.message_type.full_name == Duration.DESCRIPTOR.full_name:
            plain[f"{field.name}_seconds"] = value.seconds + value.nanos / 1e9 if message.HasField(field.name) else None
        elif field.message_type is not None and not message.HasField(field.name):
            plain[field.name] = None
        else:
            plain[field.name] = _value(field.enum_type, value)
    return plain


def short_name(message: Message, field_name: str) -> str:
    """Returns the short name of the enumerator in the field `field_name`: `ready` for `STATE_READY` of `State`."""
    enumeration = message.DESCRIPTOR.fields_by_name[field_name].enum_type
    if enumeration is None:
        raise TypeError(f"{field_name} is not an enumeration")
    return _enumerator(enumeration, getattr(message, field_name))


def write_json(data: Plain, *, lines: bool = False) -> None:
    """Prints `data` as one JSON object, on one line if it is one of many."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, ensure_ascii=not is_unicode, indent=None if lines else 2)
    print(printable_json(text), flush=True)


def _enumerator(enumeration: _Enumeration, number: int) -> str:
    values = enumeration.values_by_number
    if number not in values:
        return str(number)
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return values[number].name.removeprefix(prefix).lower().removesuffix("unspecified")


def _value(enumeration: _Enumeration | None, value: object) -> Plain:
    if isinstance(value, Timestamp):
        seconds, microseconds = divmod(value.ToMicroseconds(), 1_000_000)
        instant = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
        return instant.isoformat().replace("+00:00", "Z")
    if isinstance(value, Message):
        return to_plain(value)
    if enumeration is not None and isinstance(value, int):
        return _enumerator(enumeration, value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"JSON cannot say a {type(value).__name__}")
