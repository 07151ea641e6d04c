"""Edits by operators of what they read before."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from fleetcast_kit.errors import AbortedError

from fleetcast_scheduler.domain.collection import Collection
from fleetcast_scheduler.domain.machine import Machine

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
