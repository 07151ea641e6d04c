"""Task sequences that are ready to use, or to start one's own from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources


def ready_sequences() -> Mapping[str, str]:
    """Returns the YAML text of each, by its name."""
    files = (file for file in resources.files(__name__).iterdir() if file.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}
