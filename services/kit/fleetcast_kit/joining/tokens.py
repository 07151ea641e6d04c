"""Where an enrolment token comes from: a file, standard input, the environment, or, for all to see, an argument."""

from __future__ import annotations

import sys
from pathlib import Path

from fleetcast_kit.errors import InvalidArgumentError

STANDARD_INPUT = "-"


def token_of(token: str, token_file: Path | None) -> str:
    """Returns the token that `token_file` holds, else `token`; `-` in either means standard input. Empty without both.

    Raises:
        InvalidArgumentError: the file cannot be read or is empty.
    """
    if token_file is None and token != STANDARD_INPUT:
        return token
    if token_file is None or str(token_file) == STANDARD_INPUT:
        source, found = "standard input", sys.stdin.readline()
    else:
        source = f"the file {token_file}"
        try:
            found = token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InvalidArgumentError(
                f"the token cannot be read from {source}: {cause}", field="token_file"
            ) from error
    if not found.strip():
        raise InvalidArgumentError(f"there is no token in {source}", field="token_file")
    return found.strip()
