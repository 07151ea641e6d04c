"""What Linux knows of a file and a tar does not hold or does not compare: flags of chattr, extended attributes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.saving.protection import APPEND_ONLY, IMMUTABLE, flags_of, set_flags, take_away

MEMBER = "fleetcast-linux-attributes.json"
"""Member of the archive with the facts of the files that have any, by their paths."""
_KEPT_FLAGS = IMMUTABLE | APPEND_ONLY | 0x40 | 0x80 | 0x8
"""Also: no dump, no access time, synchronous."""

Facts = dict[str, Any]


def collect(root: Path, names: list[str], into: dict[str, Facts]) -> Iterator[None]:
    """Notes the facts of the files that have any."""
    for name in names:
        facts: Facts = {}
        if flags := flags_of(root / name) & _KEPT_FLAGS:
            facts["flags"] = flags
        if values := _attributes(root / name):
            facts["xattrs"] = values
        if facts:
            into[name] = facts
        yield


def _attributes(path: Path) -> dict[str, str]:
    """Returns a digest of each extended attribute; ACLs and capabilities are some."""
    names = os.listxattr(path, follow_symlinks=False)
    values = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return {name: hashlib.sha256(value).hexdigest() for name, value in sorted(values.items())}


def release(root: Path, facts: Mapping[str, Facts]) -> None:
    """Takes the flags off files that an attempt before this one has put back, so that they can be written."""
    for name in sorted(name for name, values in facts.items() if "flags" in values):
        if os.path.lexists(root / name):
            take_away(root / name)


def compare(root: Path, facts: Mapping[str, Facts]) -> Iterator[None]:
    """Does nothing if the extended attributes are those that were noted.

    Raises:
        StepError: they are not.
    """
    for name, values in facts.items():
        found = _attributes(root / name)
        for attribute, wanted in values.get("xattrs", {}).items():
            if found.get(attribute) != wanted:
                raise StepError(f"the attribute {attribute} of /{name} is not what it was")
        yield


def write(root: Path, facts: Mapping[str, Facts]) -> Iterator[None]:
    """Sets the flags, of what is below first: nothing can be put into an immutable directory any more."""
    for name, values in sorted(facts.items(), reverse=True):
        if "flags" in values:
            set_flags(root / name, flags_of(root / name) & ~_KEPT_FLAGS | values["flags"])
        yield
