"""The code of a key: short enough to be compared by eye on two screens, and costly to meet by chance."""

from __future__ import annotations

import hashlib

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O and U, which are misread."""

_CHARACTERS = 7
_MISREAD = str.maketrans("ILOU", "110V")


def key_code(public_key_der: bytes) -> str:
    """Returns the code of a public key (DER, SubjectPublicKeyInfo), such as `K7QF-42X`: 35 bits.

    It takes about 0.1 s, and so does each guess of whoever looks for another key with the same code: 2^34 guesses are
    fifty years of one processor.
    """
    digest = hashlib.scrypt(public_key_der, salt=b"fleetcast key code 1", n=1 << 15, r=8, p=1, maxmem=64 << 20, dklen=5)
    number = int.from_bytes(digest) >> 5
    text = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_CHARACTERS)))
    return f"{text[:4]}-{text[4:]}"


def read_code(text: str) -> str:
    """Returns a code as somebody wrote it in the form in which it is shown; empty if it is none."""
    plain = "".join(character for character in text.upper() if character.isalnum()).translate(_MISREAD)
    if len(plain) != _CHARACTERS or any(character not in _ALPHABET for character in plain):
        return ""
    return f"{plain[:4]}-{plain[4:]}"
