"""Page tokens of lists that are ordered by an instant and a name."""

from __future__ import annotations

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.paging import decode_page_token, encode_page_token


def encode_position(time: float, name: str) -> str:
    """Returns the token for the page after a row."""
    return encode_page_token([repr(time), name])


def decode_position(token: str) -> tuple[float, str] | None:
    """Returns the instant and name of the row before a page; None for the first page.

    Raises:
        InvalidArgumentError: the token was not made for this list.
    """
    position = decode_page_token(token, str, str)
    if position is None:
        return None
    try:
        return float(position[0]), str(position[1])
    except ValueError:
        raise InvalidArgumentError(
            "page_token is not one that this list returned: start again without it", field="page_token"
        ) from None
