"""Versions of task sequences, their names, and what may be done with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from fleetcast_sequence import Reference, TaskSequence

from fleetcast_catalog.images.domain import Image, listed

COLLECTION = "taskSequences"
_SERIES = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class TaskSequenceVersion:
    """A stored version. Fields as in fleetcast.catalog.v1.TaskSequence."""

    id: int
    """Grows with every version; 0 for one that is not stored."""
    task_sequence: str
    digest: str
    description: str
    step_count: int
    source_file: str
    create_time: datetime | None
    holders: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{COLLECTION}/{self.task_sequence}@{self.digest}"

    def check_deletable(self) -> None:
        """Checks that nobody needs it.

        Raises:
            FailedPreconditionError: it is held.
        """
        if self.holders:
            raise FailedPreconditionError(
                f"{self.name} is in use by {listed(self.holders)}: end that first", reason="TASK_SEQUENCE_IN_USE"
            )


@dataclass(frozen=True)
class StoredSequence:
    """A version with what it says."""

    version: TaskSequenceVersion
    sequence: TaskSequence


@dataclass(frozen=True)
class BrokenReference:
    """A reference that leads nowhere."""

    reference: Reference
    problem: str
    """Why, as a sentence."""


@dataclass(frozen=True)
class DiskDemand:
    """What a step needs of the disk that it writes."""

    step: str
    size_bytes: int
    sector_size_bytes: int = 0
    """0 if any will do."""


@dataclass(frozen=True)
class ResolvedSequence:
    """A version as a machine runs it: children in their places, every reference pinned."""

    version: TaskSequenceVersion
    pinned: TaskSequence
    images: tuple[Image, ...]
    """The images that its steps need, each version once."""
    children: tuple[TaskSequenceVersion, ...]
    """The child sequences in it, each version once."""
    disk_demands: tuple[DiskDemand, ...] = ()


@dataclass(frozen=True)
class TaskSequenceName:
    """`taskSequences/{id}` or `taskSequences/{id}@{digest}`."""

    task_sequence: str
    digest: str = ""
    """Empty for the newest version."""

    @classmethod
    def parse(cls, name: str, *, field: str = "name") -> TaskSequenceName:
        """Returns the parts of a resource name.

        Raises:
            InvalidArgumentError: it is not the name of a task sequence.
        """
        collection, _, rest = name.partition("/")
        series, at, digest = rest.partition("@")
        if collection != COLLECTION or not _SERIES.fullmatch(series) or (at and not _DIGEST.fullmatch(digest)):
            raise InvalidArgumentError(
                f"{name[:200]!r} is not the name of a task sequence: write {COLLECTION}/NAME or "
                f"{COLLECTION}/NAME@sha256:DIGEST",
                field=field,
            )
        return cls(series, digest)

    def __str__(self) -> str:
        return f"{COLLECTION}/{self.task_sequence}" + (f"@{self.digest}" if self.digest else "")


def check_sequence_series(text: str, *, field: str) -> str:
    """Returns `text` if it can name a series of versions.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _SERIES.fullmatch(text):
        raise InvalidArgumentError(
            f"{text[:200]!r} cannot be the name of a task sequence: use lower-case letters, digits and '-', at most "
            "63, starting with a letter or digit",
            field=field,
        )
    return text
