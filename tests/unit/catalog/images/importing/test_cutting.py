import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from fleetcast_catalog.images.content import StoredContent
from fleetcast_catalog.images.domain import CHUNK_BYTES, ImageFileError
from fleetcast_catalog.images.importing.cutting import Cutter, is_zero
from fleetcast_catalog.images.importing.sources import FileSource, ImportInterruptedError, Source
from fleetcast_catalog.images.pins import PinnedStore
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.errors import InvalidArgumentError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.catalog.images.memory import MemorySource

_random = random.Random(3)


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(tmp_path / "store")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def cutter_of(
    source: Source, store: ChunkStore, executor: ThreadPoolExecutor, interrupted: threading.Event | None = None
) -> Cutter:
    pinned = PinnedStore(store)
    with pinned.pinning() as pins:
        return Cutter(source, pins, executor, 2, interrupted or threading.Event())


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20 * CHUNK_BYTES + 5])
def test_what_was_cut_reads_back_equal(size: int, store: ChunkStore, executor: ThreadPoolExecutor) -> None:
    content = _random.randbytes(size)
    cutter = cutter_of(MemorySource(content, step_bytes=300_000), store, executor)
    cutter.cut()
    table = cutter.table
    assert cutter.size_bytes == size
    assert len(table) == -(-size // CHUNK_BYTES)
    assert table.digests[0].tobytes() == blake3(content[:CHUNK_BYTES]).digest()
    assert StoredContent(store, table, size, CHUNK_BYTES).read(0, size) == content
    assert table.manifest(size, CHUNK_BYTES).digest.startswith("sha256:")


def test_zero_chunks_are_not_stored_and_equal_chunks_are_stored_once(
    store: ChunkStore, executor: ThreadPoolExecutor
) -> None:
    chunk = _random.randbytes(CHUNK_BYTES)
    cutter = cutter_of(MemorySource(bytes(CHUNK_BYTES) + chunk * 3 + bytes(5)), store, executor)
    cutter.cut()
    assert cutter.table.zero.tolist() == [True, False, False, False, True]
    assert cutter.added_bytes == CHUNK_BYTES
    assert list(store.digests()) == [blake3(chunk).digest()]
    assert [digest.tobytes() for digest in cutter.added_digests] == [blake3(chunk).digest()]


def test_the_holes_of_a_file_are_zero_chunks(tmp_path: Path, store: ChunkStore, executor: ThreadPoolExecutor) -> None:
    file, data = tmp_path / "sparse", _random.randbytes(CHUNK_BYTES)
    with file.open("wb") as sparse:
        for chunk in (3, 4, 700):
            sparse.seek(chunk * CHUNK_BYTES)
            sparse.write(data)
        sparse.truncate(1000 * CHUNK_BYTES + 7)
    with FileSource(file) as source:
        source.peek(1000)
        cutter = cutter_of(source, store, executor)
        cutter.cut()
    assert cutter.size_bytes == 1000 * CHUNK_BYTES + 7
    assert [chunk for chunk, zero in enumerate(cutter.table.zero) if not zero] == [3, 4, 700]


def test_an_empty_source_is_refused(store: ChunkStore, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(ImageFileError, match="empty"):
        cutter_of(MemorySource(b""), store, executor).cut()


def test_after_an_interruption_the_rows_tell_all_that_was_stored(
    store: ChunkStore, executor: ThreadPoolExecutor
) -> None:
    interrupted = threading.Event()

    class Interrupting(MemorySource):
        def _read(self, buffer: memoryview) -> int:
            if self.position_bytes >= 5 * CHUNK_BYTES:
                interrupted.set()
            return super()._read(buffer)

    source = Interrupting(_random.randbytes(30 * CHUNK_BYTES))
    cutter = cutter_of(source, store, executor, interrupted)
    with pytest.raises(ImportInterruptedError):
        cutter.cut()
    stored = set(store.digests())
    assert 0 < len(stored) < 30
    assert {digest.tobytes() for digest in cutter.added_digests} == stored


def test_a_source_that_fails_ends_the_cut_with_its_own_error(store: ChunkStore, executor: ThreadPoolExecutor) -> None:
    class Failing(MemorySource):
        def _read(self, buffer: memoryview) -> int:
            if self.position_bytes > 2 * CHUNK_BYTES:
                raise ImageFileError("is broken", reason="IMAGE_CORRUPT")
            return super()._read(buffer)

    with pytest.raises(ImageFileError, match="broken"):
        cutter_of(Failing(_random.randbytes(9 * CHUNK_BYTES)), store, executor).cut()


def test_a_store_that_cannot_be_written_ends_the_cut(
    tmp_path: Path, store: ChunkStore, executor: ThreadPoolExecutor
) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        cutter_of(MemorySource(_random.randbytes(9 * CHUNK_BYTES)), store, executor).cut()


@given(st.integers(0, 70), st.integers(0, 69))
def test_content_is_zero_only_if_every_byte_is(size: int, position: int) -> None:
    content = bytearray(size * 8 + position % 8)
    assert is_zero(content)
    if content:
        content[position % len(content)] = 1
        assert not is_zero(content)


def test_a_directory_or_a_missing_file_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in ((tmp_path, "a directory"), (tmp_path / "no", "No such file"), (tmp_path / "pipe", "neither")):
        with pytest.raises(InvalidArgumentError, match=problem):
            FileSource(path)
