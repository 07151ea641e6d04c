"""Messages as no honest peer would send them: any field with any value, edges and unknown enum values among them."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

AnyMessage = TypeVar("AnyMessage", bound=Message)

_MOST_DEPTH = 4
_MOST_ELEMENTS = 3
_NAMES = st.sampled_from(
    [
        "machines/m1",
        "images/office",
        f"images/office@sha256:{'ab' * 32}",
        "sessions/s1/transmissions/1",
        "collections/lab",
        "taskSequences/refresh",
        "2026-12-01T22:00",
        "FREQ=WEEKLY;BYDAY=MO",
        "Europe/Berlin",
        "239.192.64.0",
        "ff05::1:0",
        "192.0.2.0/24",
        "host:7443",
        "00:11:22:33:44:55",
    ]
)


def messages(kind: type[AnyMessage]) -> st.SearchStrategy[AnyMessage]:
    """Returns a strategy for messages of a kind: each field is unset or has any value of its type."""

    @st.composite
    def draw_message(draw: st.DrawFn) -> AnyMessage:
        message = kind()
        _fill(draw, message, _MOST_DEPTH)
        return message

    return draw_message()


def _fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is None:
            _set(draw, message, field)
        elif depth:
            _fill_below(draw, message, field, depth - 1)


def _set(draw: st.DrawFn, message: Message, field: Any) -> None:
    values = _values(field)
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(values, max_size=_MOST_ELEMENTS)))
    else:
        setattr(message, field.name, draw(values))


def _fill_below(draw: st.DrawFn, message: Message, field: Any, depth: int) -> None:
    below = getattr(message, field.name)
    kind = field.message_type
    if kind.GetOptions().map_entry:
        _fill_map(draw, below, kind, depth)
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, _MOST_ELEMENTS))):
            _fill(draw, below.add(), depth)
    else:
        below.SetInParent()
        _fill(draw, below, depth)


def _fill_map(draw: st.DrawFn, entries: Any, kind: Any, depth: int) -> None:
    value = kind.fields_by_name["value"]
    for key in draw(st.lists(_values(kind.fields_by_name["key"]), max_size=_MOST_ELEMENTS)):
        if value.message_type is None:
            entries[key] = draw(_values(value))
        else:
            _fill(draw, entries[key], depth)


def _values(field: Any) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=40)
        case FieldDescriptor.CPPTYPE_STRING:
            return _NAMES | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        case FieldDescriptor.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return st.sampled_from(known) | st.integers(-3, 1000)
    bits = 32 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    unsigned = field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.integers(0, 5) | st.sampled_from([low, high]) | st.integers(low, high)
