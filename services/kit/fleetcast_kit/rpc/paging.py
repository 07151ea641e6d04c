"""Pages of lists: sizes as asked for, and tokens that say where the next page starts."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fleetcast_kit.errors import InvalidArgumentError

_Key = TypeVar("_Key", int, str, tuple[float, str])
_Row = TypeVar("_Row")


class ListRequest(Protocol):
    """A request for a page of a list."""

    @property
    def page_size(self) -> int:
        """How many rows; 0 leaves it to the server."""

    @property
    def page_token(self) -> str:
        """From the page before; empty for the first page."""


@dataclass(frozen=True, slots=True)
class Paging(Generic[_Key]):
    """The page that a request asks for. `by_number`, `by_name` and `by_time` read it for lists in these orders."""

    size: int
    """Rows of the page, at most."""
    after: _Key | None
    """Sort key of the last row of the page before; None for the first page."""

    @property
    def limit(self) -> int:
        """How many rows to read: one more than the page has tells whether there is a next page."""
        return self.size + 1

    def cut(self, found: Sequence[_Row], key: Callable[[_Row], _Key]) -> tuple[Sequence[_Row], str]:
        """Returns the rows of the page, and the token for the next one; it is empty if this is the last page."""
        if len(found) <= self.size:
            return found, ""
        last = key(found[self.size - 1])
        position = [repr(last[0]), last[1]] if isinstance(last, tuple) else [last]
        return found[: self.size], encode_page_token(position)


def by_number(request: ListRequest, *, default: int = 100, maximum: int = 1000) -> Paging[int]:
    """Returns the page of a list whose rows are in the order of a number.

    Raises:
        InvalidArgumentError: the size is negative, or the token was not made for this list.
    """
    position = decode_page_token(request.page_token, int)
    after = int(position[0]) if position is not None else None
    return Paging(page_size(request.page_size, default=default, maximum=maximum), after)


def by_name(request: ListRequest) -> Paging[str]:
    """Returns the page of a list whose rows are in the order of their names.

    Raises:
        InvalidArgumentError: the size is negative, or the token was not made for this list.
    """
    position = decode_page_token(request.page_token, str)
    return Paging(page_size(request.page_size), str(position[0]) if position is not None else None)


def by_time(request: ListRequest) -> Paging[tuple[float, str]]:
    """Returns the page of a list whose rows are in the order of an instant, in seconds since 1970, and then a name.

    Raises:
        InvalidArgumentError: the size is negative, or the token was not made for this list.
    """
    position = decode_page_token(request.page_token, str, str)
    try:
        after = (float(position[0]), str(position[1])) if position is not None else None
    except ValueError:
        raise _foreign_token() from None
    return Paging(page_size(request.page_size), after)


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
        raise _foreign_token()
    return tuple(position)


def _foreign_token() -> InvalidArgumentError:
    return InvalidArgumentError(
        "page_token is not one that this list returned: start again without it", field="page_token"
    )
