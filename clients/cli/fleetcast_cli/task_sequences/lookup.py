"""Task sequences that people name by part of a digest, found in the catalog."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fleetcast.catalog.v1 import task_sequence_service_pb2
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError

from fleetcast_cli.shell.connection import every_page
from fleetcast_cli.shell.references import FULL_DIGITS
from fleetcast_cli.shell.text import DIGEST_DIGITS

if TYPE_CHECKING:
    from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceAsyncStub

_COLLECTION = "taskSequences/"
_SERIES = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


def sequence_series(text: str) -> str:
    """Returns `text`, with or without its collection, as the name of a series of versions.

    Raises:
        InvalidArgumentError: it is not.
    """
    series = text.removeprefix(_COLLECTION)
    if not _SERIES.fullmatch(series):
        raise InvalidArgumentError(
            f"{series!r} is not the name of a task sequence: use 1 to 63 lower-case letters, digits or '-', starting "
            "with a letter or digit",
            field="task_sequence",
        )
    return series


def sequence_reference(text: str) -> str:
    """Returns the resource name that NAME or NAME@DIGEST stands for, the digest perhaps shortened.

    Raises:
        InvalidArgumentError: it is neither.
    """
    series, separator, digest = text.removeprefix(_COLLECTION).partition("@")
    name = f"{_COLLECTION}{sequence_series(series)}"
    if not separator:
        return name
    match = _DIGEST.fullmatch(digest.lower())
    if match is None:
        raise InvalidArgumentError(
            f"{digest!r} is not a digest: write NAME@sha256: and at least the first 4 of its {FULL_DIGITS} "
            "hexadecimal digits",
            field="task_sequence",
        )
    return f"{name}@sha256:{match[1]}"


async def find_task_sequence(service: TaskSequenceServiceAsyncStub, reference: str) -> str:
    """Returns `reference` with its digest in full.

    Raises:
        NotFoundError: no version's digest starts so.
        InvalidArgumentError: the digests of several versions do.
    """
    series, separator, digest = reference.removeprefix(_COLLECTION).partition("@sha256:")
    if not separator or len(digest) == FULL_DIGITS:
        return reference
    found: list[str] = []
    async for answer in every_page(
        service.ListTaskSequences, task_sequence_service_pb2.ListTaskSequencesRequest(task_sequence=series)
    ):
        found += [each.name for each in answer.task_sequences if each.digest.startswith(f"sha256:{digest}")]
    if not found:
        raise NotFoundError(
            f"no version of task sequence {series!r} has a digest that starts with {digest}; see: "
            "fleetcast task-sequence list",
            reason="TASK_SEQUENCE_NOT_FOUND",
        )
    if len(found) > 1:
        raise InvalidArgumentError(
            f"{len(found)} versions of task sequence {series!r} have digests that start with {digest}: write more "
            "digits",
            field="task_sequence",
        )
    return found[0]


def short_sequence(name: str) -> str:
    """Returns a version's resource name as people see it: `join-domain@sha256:` and the first digits."""
    series, separator, digest = name.removeprefix(_COLLECTION).partition("@sha256:")
    return f"{series}{separator}{digest[:DIGEST_DIGITS]}"
