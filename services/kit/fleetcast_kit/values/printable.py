"""Text from anybody, made safe for a terminal: names of files, and what machines say of themselves."""

from __future__ import annotations

import re

# C0 but for tab and line end, DEL and C1: a terminal obeys them. Marks of direction, and line ends of Unicode: they
# make a line read as what it is not. Surrogates: bytes of a file name that are not UTF-8, as Python reads them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Returns `text` with what a terminal would obey, or cannot show, written out: `\x1b`, `\u202e`.

    A byte of a file name that is not UTF-8 becomes that byte: `\xe9`. Tabs and line ends stay.
    """
    return _UNSAFE.sub(_escaped, text)


def printable_json(text: str) -> str:
    r"""Returns JSON that says the same without what a terminal would obey: everywhere as `\u001b`."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
