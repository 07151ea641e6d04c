import random
import threading
from pathlib import Path

from blake3 import blake3
from fleetcast_catalog.images.pins import PinnedStore
from fleetcast_kit.chunks.store import ChunkStore

_random = random.Random(5)
CONTENTS = [_random.randbytes(2000) for _ in range(40)]
CHUNKS = {blake3(content).digest(): content for content in CONTENTS}


def test_a_pinned_chunk_is_not_deleted_and_an_unpinned_one_is(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    pinned = PinnedStore(store)
    digest, content = next(iter(CHUNKS.items()))
    with pinned.pinning() as pins, pinned.pinning() as others:
        assert pins.put(digest, content).added
        assert not others.put(digest, content).added
        assert pinned.delete(digest) == 0
        assert store.has(digest)
    assert pinned.delete(digest) == len(content)
    assert not store.has(digest)


def test_pins_that_go_leave_those_of_other_imports(tmp_path: Path) -> None:
    pinned = PinnedStore(ChunkStore(tmp_path))
    digest, content = next(iter(CHUNKS.items()))
    with pinned.pinning() as survivor:
        survivor.put(digest, content)
        with pinned.pinning() as other:
            other.put(digest, content)
        assert pinned.delete(digest) == 0


def test_no_chunk_that_an_import_put_is_gone_whatever_deletions_run_beside_it(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    pinned = PinnedStore(store)
    done = threading.Event()

    def delete_for_ever() -> None:
        while not done.is_set():
            for digest in CHUNKS:
                pinned.delete(digest)

    deleter = threading.Thread(target=delete_for_ever)
    deleter.start()
    try:
        for _ in range(30):
            with pinned.pinning() as pins:
                for digest, content in CHUNKS.items():
                    pins.put(digest, content)
                assert all(store.has(digest) for digest in CHUNKS)
    finally:
        done.set()
        deleter.join()
