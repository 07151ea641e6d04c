"""What people type for a resource, turned into its name."""

from __future__ import annotations

import re

from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_cli.shell.text import DIGEST_DIGITS

_SERIES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FULL_DIGITS = 64
"""Hexadecimal digits of a whole digest."""


def series_name(text: str) -> str:
    """Returns `text`, which must be the name of a series of image versions.

    Raises:
        InvalidArgumentError: it is not.
    """
    if not _SERIES.fullmatch(text):
        raise InvalidArgumentError(
            f"{text!r} is not an image name: use 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or "
            "digit",
            field="image",
        )
    return text


def image_reference(text: str) -> str:
    """Returns the resource name that NAME or NAME@DIGEST stands for, the digest perhaps shortened.

    Raises:
        InvalidArgumentError: it is neither.
    """
    series, separator, digest = text.removeprefix("images/").partition("@")
    series_name(series)
    if not separator:
        return f"images/{series}"
    match = _DIGEST.fullmatch(digest.lower())
    if match is None:
        raise InvalidArgumentError(
            f"{digest!r} is not a digest: write NAME@sha256: and at least the first 4 of its {FULL_DIGITS} "
            "hexadecimal digits",
            field="image",
        )
    return f"images/{series}@sha256:{match[1]}"


def resource(collection: str, text: str) -> str:
    """Returns the name of the resource `text` in `collection`; the collection may be part of `text` or left out.

    Raises:
        InvalidArgumentError: it cannot be a name in that collection.
    """
    identifier = text.removeprefix(f"{collection}/")
    if not _IDENTIFIER.fullmatch(identifier):
        raise InvalidArgumentError(
            f"{text!r} cannot be a name among the {collection}: names have letters, digits, '.', '_' and '-'",
            field=collection,
        )
    return f"{collection}/{identifier}"


def identifier(name: str) -> str:
    """Returns the last part of a resource name."""
    return name.rpartition("/")[2]


def short_image(name: str) -> str:
    """Returns an image's resource name as people see it: `win11@sha256:` and the first digits."""
    series, separator, digest = name.removeprefix("images/").partition("@sha256:")
    return f"{series}{separator}{digest[:DIGEST_DIGITS]}"
