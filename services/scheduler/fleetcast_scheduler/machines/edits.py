"""Edits by operators of what they read before."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from fleetcast_kit.errors import AbortedError

from fleetcast_scheduler.machines.domain.collection import Collection
from fleetcast_scheduler.machines.domain.machine import Machine

Resource = TypeVar("Resource", Machine, Collection)


def edited(present: Resource, edit: Resource, etag: str) -> Resource:
    """Returns `edit`, counted as one more edit of `present`.

    Raises:
        AbortedError: `etag` is given, and somebody else changed `present` since it was read.
    """
    if etag and etag != str(present.edit_count):
        raise AbortedError(
            f"{present.name} was changed by somebody else: read it again, then change it", reason="ETAG_MISMATCH"
        )
    return replace(edit, edit_count=present.edit_count + 1)


def changes(before: Resource, after: Resource) -> dict[str, str]:
    """Returns the new values of what an edit changed, for the record; of variables only the names."""
    values = {field.name: getattr(after, field.name) for field in fields(after) if field.name != "edit_count"}
    return {name: _told(value) or "none" for name, value in values.items() if value != getattr(before, name)}


def _told(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(sorted(map(str, value)))  # the wire gives them in any order
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
