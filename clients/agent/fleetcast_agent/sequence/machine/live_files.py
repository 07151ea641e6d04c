"""What expressions may ask about files of the running system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 1 << 20
"""How much of a file `file_text` returns."""


def file_exists(path: str) -> bool:
    """Returns whether there is a file."""
    return Path(path).is_file()


def directory_exists(path: str) -> bool:
    """Returns whether there is a directory."""
    return Path(path).is_dir()


def file_size_bytes(path: str) -> int:
    """Returns the size of a file; -1 if there is none."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def file_text(path: str) -> str:
    """Returns the beginning of a file as text; empty if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_TEXT_BYTES).decode(errors="replace")
    except OSError:
        return ""


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "file_exists": file_exists,
    "directory_exists": directory_exists,
    "file_size_bytes": file_size_bytes,
    "file_text": file_text,
}
"""By the names that expressions use."""
