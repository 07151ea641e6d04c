"""Chunks of another host's catalog on this host's disk."""

from pathlib import Path

import pytest
from fleetcast_sender.chunks.cache import ChunkCache

DIGESTS = [f"{number:064x}" for number in range(4)]


def test_what_was_put_is_read_also_by_the_next_process(tmp_path: Path) -> None:
    ChunkCache(tmp_path, 1 << 20).put(DIGESTS[0], b"stored")
    cache = ChunkCache(tmp_path, 1 << 20)
    assert cache.has(DIGESTS[0])
    assert cache.read(DIGESTS[0]) == b"stored"


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "older", "gone"])
def test_what_is_not_what_was_put_is_forgotten(tmp_path: Path, spoil: str) -> None:
    cache = ChunkCache(tmp_path, 1 << 20)
    cache.put(DIGESTS[0], b"stored" * 100)
    path = tmp_path / DIGESTS[0]
    content = path.read_bytes()
    match spoil:
        case "flip":
            path.write_bytes(b"S" + content[1:])
        case "cut":
            path.write_bytes(content[:-1])
        case "empty":
            path.write_bytes(b"")
        case "older":
            path.write_bytes(b"stored" * 100)
        case "gone":
            path.unlink()
    assert cache.read(DIGESTS[0]) == b""
    assert not cache.has(DIGESTS[0])
    assert not path.exists()
    cache.put(DIGESTS[0], b"again")
    assert cache.read(DIGESTS[0]) == b"again"


def test_the_chunks_used_least_recently_go_where_there_is_no_room(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, 3 * 132)
    for digest in DIGESTS[:3]:
        cache.put(digest, bytes(100))
    cache.read(DIGESTS[0])
    cache.put(DIGESTS[3], bytes(100))
    assert [cache.has(digest) for digest in DIGESTS] == [True, False, True, True]
