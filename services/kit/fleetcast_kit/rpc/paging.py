"""Pages of lists: sizes as asked for, and tokens that say where the next page starts."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from fleetcast_kit.errors import InvalidArgumentError


def page_size(requested: int, *, default: int = 100, maximum: int = 1000) -> int:
    """Returns how many rows to give: `default` for 0, never more than `maximum`.

    Raises:
        InvalidArgumentError: fewer than none are asked for.
    """
    if requested < 0:
        raise InvalidArgumentError(f"page_size is {requested}: it cannot be negative", field="page_size")
    return min(requested or default, maximum)


def encode_page_token(position: Sequence[str | int | float]) -> str:
    """Returns the token for the page after the row with the sort keys `position`."""
    return base64.urlsafe_b64encode(json.dumps(list(position), separators=(",", ":")).encode()).decode().rstrip("=")


def decode_page_token(token: str, *types: type) -> tuple[str | int | float, ...] | None:
    """Returns the sort keys in `token`, of exactly the given types; None for the empty token, the first page.

    Raises:
        InvalidArgumentError: this token was not made for this list.
    """
    if not token:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        position = None
    if not isinstance(position, list) or [type(key) for key in position] != list(types):
        raise InvalidArgumentError(
            "page_token is not one that this list returned: start again without it", field="page_token"
        )
    return tuple(position)
