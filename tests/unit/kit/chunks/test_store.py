import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from fleetcast_kit.chunks.codec import ChunkEncoding, decode, encode
from fleetcast_kit.chunks.store import ChunkStore
from fleetcast_kit.errors import DataLossError
from hypothesis import given
from hypothesis import strategies as st

_random = random.Random(11)
DENSE = _random.randbytes(1 << 20)
SPARSE = (b"fleetcast" * 200_000)[: 1 << 20]


def digest_of(content: bytes) -> bytes:
    return blake3(content).digest()


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(tmp_path / "store")


@pytest.mark.parametrize(("content", "encoding"), [(DENSE, ChunkEncoding.RAW), (SPARSE, ChunkEncoding.ZSTD)])
def test_a_chunk_is_compressed_only_if_that_pays(store: ChunkStore, content: bytes, encoding: ChunkEncoding) -> None:
    digest = digest_of(content)
    placement = store.put(digest, content)
    chunk = store.read(digest)
    assert placement.added
    assert placement.form.encoding is chunk.encoding is encoding
    assert placement.form.size_bytes == len(chunk.stored) <= len(content)
    assert decode(chunk.encoding, chunk.stored, len(content)) == content
    assert store.path(digest).read_bytes() == chunk.stored


@pytest.mark.parametrize("content", [DENSE, SPARSE])
def test_a_mapped_chunk_is_its_stored_form_and_outlives_its_file(store: ChunkStore, content: bytes) -> None:
    digest = digest_of(content)
    store.put(digest, content)
    stored = store.read(digest).stored
    mapped = store.mapped(digest)
    store.delete(digest)
    assert mapped == stored
    with pytest.raises(DataLossError, match="missing"):
        store.mapped(digest)


def test_a_chunk_that_cannot_be_mapped_is_read(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path, map_file=lambda *_: None)
    digest = digest_of(SPARSE)
    store.put(digest, SPARSE)
    assert store.mapped(digest) == store.read(digest).stored


def test_a_chunk_put_twice_is_kept_once(store: ChunkStore) -> None:
    digest = digest_of(DENSE)
    first = store.put(digest, DENSE)
    second = store.put(digest, DENSE)
    assert not second.added
    assert first.form == second.form
    assert list(store.digests()) == [digest]


@pytest.mark.parametrize("content", [DENSE, SPARSE])
@pytest.mark.parametrize("damage", [b"", b"short", b"\x28\xb5\x2f\xfd\x20\xff\xff", DENSE])
def test_a_damaged_copy_is_noticed_and_replaced(store: ChunkStore, content: bytes, damage: bytes) -> None:
    digest = digest_of(content)
    form = store.put(digest, content).form
    if damage == content:
        damage = content[::-1]
    store.path(digest).write_bytes(damage)
    with pytest.raises(DataLossError) as caught:
        store.verify(digest, len(content))
    assert caught.value.reason == "CHUNK_DAMAGED"
    assert store.put(digest, content).added
    assert store.verify(digest, len(content)) == form


def test_a_copy_in_the_other_encoding_does_not_outlive_its_replacement(store: ChunkStore) -> None:
    digest = digest_of(DENSE)
    store.put(digest, DENSE)
    path = store.path(digest)
    path.rename(path.with_suffix(".zst"))
    assert store.put(digest, DENSE).added
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_missing_chunk_is_data_loss(store: ChunkStore) -> None:
    digest = digest_of(b"never stored")
    assert not store.has(digest)
    for read in (store.read, store.path, lambda missing: store.verify(missing, 1)):
        with pytest.raises(DataLossError) as caught:
            read(digest)
        assert caught.value.reason == "CHUNK_MISSING"


def test_deleting_frees_what_was_stored_and_forgets_the_chunk(store: ChunkStore) -> None:
    digest = digest_of(SPARSE)
    size = store.put(digest, SPARSE).form.size_bytes
    assert store.delete(digest) == size
    assert store.delete(digest) == 0
    assert not list(store.digests())


def test_a_write_that_fails_leaves_nothing(store: ChunkStore, tmp_path: Path) -> None:
    digest = digest_of(DENSE)
    fan_out = tmp_path / "store" / "chunks" / digest.hex()[:2]
    fan_out.parent.mkdir(parents=True)
    fan_out.write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        store.put(digest, DENSE)
    assert not store.unfinished()


def test_what_a_dead_process_left_can_be_discarded(store: ChunkStore) -> None:
    store.put(digest_of(DENSE), DENSE)
    assert not store.unfinished()
    (store.root / "unfinished" / "left").write_bytes(b"half")
    assert store.unfinished()
    store.discard_unfinished()
    assert not store.unfinished()


def test_a_barrier_returns_once_everything_is_durable(store: ChunkStore) -> None:
    with store.barrier() as wait:
        store.put(digest_of(DENSE), DENSE)
        wait()
    assert store.has(digest_of(DENSE))


def test_a_frame_that_claims_another_size_takes_no_memory() -> None:
    bomb = zstandard.compress(bytes(64 << 20))
    with pytest.raises(DataLossError, match="does not hold 100 bytes"):
        decode(ChunkEncoding.ZSTD, bomb, 100)


def test_a_frame_that_does_not_state_its_size_is_decoded_up_to_what_is_expected() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(DENSE)
    assert decode(ChunkEncoding.ZSTD, frame, len(DENSE)) == DENSE
    for size in (len(DENSE) - 1, len(DENSE) + 1):
        with pytest.raises(DataLossError, match="stored chunk"):
            decode(ChunkEncoding.ZSTD, frame, size)


@given(st.binary(max_size=20_000), st.booleans())
def test_what_is_encoded_decodes_to_itself(content: bytes, repeated: bool) -> None:
    content = content * 20 if repeated else content
    encoding, stored = encode(content)
    assert decode(encoding, stored, len(content)) == content
    assert len(stored) <= len(content)


@given(st.binary(max_size=300), st.sampled_from(ChunkEncoding), st.integers(0, 500))
def test_no_stored_bytes_make_decode_raise_anything_but_its_own_error(
    stored: bytes, encoding: ChunkEncoding, size: int
) -> None:
    with suppress(DataLossError):
        assert len(decode(encoding, stored, size)) == size


def test_stored_chunks_are_not_for_everybody(store: ChunkStore) -> None:
    store.put(digest_of(DENSE), DENSE)
    assert os.stat(store.path(digest_of(DENSE))).st_mode & 0o007 == 0
