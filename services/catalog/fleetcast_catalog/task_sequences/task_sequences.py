"""What the catalog does with task sequences, whoever asks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from fleetcast_sequence import (
    Problem,
    SequenceFileError,
    Step,
    TaskSequence,
    canonical,
    digest,
    parse_located,
    references,
)
from fleetcast_sequence.model import walk
from fleetcast_sequence.text.document import Document

from fleetcast_catalog.images.domain import Hold
from fleetcast_catalog.task_sequences.domain import (
    BrokenReference,
    ResolvedSequence,
    StoredSequence,
    TaskSequenceName,
    TaskSequenceVersion,
)
from fleetcast_catalog.task_sequences.resolution import broken_references, resolve
from fleetcast_catalog.task_sequences.store import NewSequence, SequenceStore

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedSequence:
    """A version whose references have been followed."""

    version: TaskSequenceVersion
    sequence: TaskSequence
    broken: tuple[BrokenReference, ...]
    document: Document | None = None
    """The file that it was read from, if it is known."""


class TaskSequences:
    """Versions of task sequences."""

    def __init__(self, store: SequenceStore) -> None:
        self._store = store

    async def create(self, source: str, source_file: str) -> tuple[CheckedSequence, bool]:
        """Stores a file as a version unless it is one; returns the version, and whether it is new.

        Raises:
            SequenceFileError: the file has errors.
        """
        sequence, document = await asyncio.to_thread(parse_located, source)
        new = NewSequence(_version(sequence, source_file), source, canonical(sequence))
        version, is_new = await self._store.add(new, datetime.now(UTC))
        if is_new:
            _logger.info("created %s", version.name)
        return await self._checked(StoredSequence(version, sequence), document), is_new

    async def validate(self, source: str) -> CheckedSequence | tuple[Problem, ...]:
        """Returns the version that a file would be, or everything that is wrong with it. Stores nothing."""
        try:
            sequence, document = await asyncio.to_thread(parse_located, source)
        except SequenceFileError as error:
            return error.problems
        return await self._checked(StoredSequence(_version(sequence, ""), sequence), document)

    async def get(self, name: TaskSequenceName) -> CheckedSequence:
        """Returns a version.

        Raises:
            NotFoundError: there is no such version.
        """
        async with self._store.looking() as lookup:
            stored = await lookup.task_sequence(name)
        return await self._checked(stored)

    async def page(
        self, series: str, before_id: int | None, limit: int, *, newest_only: bool
    ) -> list[TaskSequenceVersion]:
        """Returns up to `limit` versions, newest first; see `SequenceStore.page`."""
        return await self._store.page(series, before_id, limit, newest_only=newest_only)

    async def source(self, name: TaskSequenceName) -> tuple[TaskSequenceVersion, str]:
        """Returns a version with the text it was made of.

        Raises:
            NotFoundError: there is no such version.
        """
        return await self._store.source(name)

    async def delete(self, name: TaskSequenceName, request_id: str) -> str:
        """Deletes a version, and returns its name; a retry returns nothing.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: somebody needs it, or it is one of several that `name` means.
        """
        version = await self._store.delete(name, request_id, datetime.now(UTC))
        if version is None:
            return ""
        _logger.info("deleted %s", version.name)
        return version.name

    async def resolve(self, name: TaskSequenceName) -> ResolvedSequence:
        """Returns a version as a machine would run it now.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: references are broken.
        """
        async with self._store.looking() as lookup:
            return await resolve(await lookup.task_sequence(name), lookup)

    async def hold(self, name: TaskSequenceName, holder: str) -> ResolvedSequence:
        """Resolves a version and holds all of it; see `SequenceStore.hold`."""
        return await self._store.hold(name, holder)

    async def release(self, holder: str) -> None:
        """Ends all holds of `holder`."""
        await self._store.release(holder)

    async def holds(self, holder_prefix: str) -> list[Hold]:
        """Returns the holds whose holder starts with `holder_prefix`."""
        return await self._store.holds(holder_prefix)

    async def _checked(self, stored: StoredSequence, document: Document | None = None) -> CheckedSequence:
        broken: list[BrokenReference] = []
        if references(stored.sequence):
            async with self._store.looking() as lookup:
                broken = await broken_references(stored.sequence, lookup)
        return CheckedSequence(stored.version, stored.sequence, tuple(broken), document)


def _version(sequence: TaskSequence, source_file: str) -> TaskSequenceVersion:
    return TaskSequenceVersion(
        id=0,
        task_sequence=sequence.name,
        digest=digest(sequence),
        description=sequence.description,
        step_count=sum(isinstance(node, Step) for _, node in walk(sequence.steps)),
        source_file=source_file,
        create_time=None,
    )
