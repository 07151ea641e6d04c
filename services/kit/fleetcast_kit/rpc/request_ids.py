"""The ids by which a repeated request is known."""

from __future__ import annotations

import uuid

from fleetcast_kit.errors import InvalidArgumentError


def checked_request_id(text: str, *, field: str = "request_id") -> str:
    """Returns a request id in its usual form; empty if there is none.

    Raises:
        InvalidArgumentError: it is not a UUID.
    """
    try:
        return str(uuid.UUID(text)) if text else ""
    except ValueError:
        raise InvalidArgumentError(f"{field} {text[:80]!r} is not a UUID", field=field) from None
