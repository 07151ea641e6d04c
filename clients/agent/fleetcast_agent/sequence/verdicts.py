"""What programs say beside their exit code, and what that means for the result: decided here for all that steps call.

The exit codes that mean success are with each call; these programs end with 0 although something is missing:

- `tar` only warns of an extended attribute that it cannot read or set.
- `wimlib-imagex capture` leaves out what it cannot save, such as files that EFS encrypted, and only warns; `apply`
  leaves out what the file system cannot hold, which for a Windows image on ext4 is expected and must be known.
- `ntfsclone` and `e2image` skip or complain in words; `cabextract` warns of a cabinet whose end is missing.

The others end with another code when their result is not whole: `mkfs.*`, `mkswap`, `resize2fs`, `ntfsresize`,
`ntfsfix`, `xfs_growfs`, `btrfs`, `mcopy`, `grub-mkimage`, `bcdboot`, `blkid`, `losetup`, `mount`. What these say beside
that, such as that lowercase labels may not suit DOS, changes nothing. `e2fsck` ends with 1 when it has repaired what
was damaged, which is what it is called for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    """How the lines of one program are judged."""

    lost: re.Pattern[str]
    """Lines that say that something is missing from the result."""
    remarked: re.Pattern[str] | None = None
    """Those among them that leave the result of use, but must be known."""
    harmless: re.Pattern[str] | None = None
    """Those among them that say nothing of the result."""
    errors_only: bool = True
    """Only what the program writes to its standard error counts."""


_WIMLIB = re.compile(r"^(\[?WARNING\b)")
_RULES = {
    "tar": _Rule(
        lost=re.compile(r"."),
        harmless=re.compile(
            r"socket ignored$|Removing leading|time stamp .* in the future|implausibly old time stamp|"
            r"Exiting with failure status|Mod time differs|record size ="
        ),
    ),
    "wimlib-imagex capture": _Rule(_WIMLIB, errors_only=False),
    "wimlib-imagex apply": _Rule(
        _WIMLIB,
        remarked=re.compile(r"Ignoring (?!EFS-encrypted data)"),
        harmless=re.compile(r"Ignoring UNIX metadata"),  # which Windows has no use for
        errors_only=False,
    ),
    "ntfsclone": _Rule(re.compile(r"^(ERROR|WARNING: .*(bad sector|inconsisten|corrupt))", re.IGNORECASE)),
    "e2image": _Rule(re.compile(r"(error|while reading|while writing)", re.IGNORECASE)),
    "cabextract": _Rule(re.compile(r"(WARNING|error|failed|missing)", re.IGNORECASE)),
}


@dataclass(frozen=True)
class Verdict:
    """What a program that ended with success has said of its result."""

    lost: tuple[str, ...] = ()
    """Lines that make it a failure."""
    remarks: tuple[str, ...] = ()
    """Lines that must be known."""


def judge(command: Sequence[str], output: str, error_output: str) -> Verdict:
    """Returns the verdict on a program by its words; `command` is its name and arguments."""
    rule = _RULES.get(" ".join(command[:2])) or _RULES.get(command[0])
    if rule is None:
        return Verdict()
    text = error_output if rule.errors_only else f"{error_output}\n{output}"
    lost: list[str] = []
    remarks: list[str] = []
    for line, following in _with_following(text.splitlines()):
        if not rule.lost.search(line) or (rule.harmless and rule.harmless.search(line)):
            continue
        said = f"{line.strip()} {following.strip()}".strip()
        (remarks if rule.remarked and rule.remarked.search(said) else lost).append(said)
    return Verdict(tuple(lost), tuple(remarks))


def _with_following(lines: list[str]) -> list[tuple[str, str]]:
    """Returns each line with the next one, if that is indented: programs go on there with the same sentence."""
    following = [*lines[1:], ""] if lines else []
    return [(line, after if after.startswith("  ") else "") for line, after in zip(lines, following, strict=True)]
