import gzip
import lzma
import random
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from fleetcast_catalog.images.domain import ImageFileError
from fleetcast_catalog.images.importing.decompression import Container, container_of, decompressed
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.catalog.images.memory import MemorySource, read_all

_random = random.Random(7)
CONTENT = _random.randbytes(300_000) + bytes(700_000) + b"fleetcast " * 40_000

COMPRESSORS: dict[Container, Callable[[bytes], bytes]] = {
    Container.GZIP: gzip.compress,
    Container.XZ: lzma.compress,
    Container.ZSTD: lambda content: zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content),
}
CONTAINERS = pytest.mark.parametrize("container", COMPRESSORS)


def unpack(file: bytes, step_bytes: int = 1 << 30) -> bytes:
    source = MemorySource(file, step_bytes)
    container = container_of(source)
    assert container is not None
    return read_all(decompressed(source, container))


@CONTAINERS
def test_a_compressed_file_is_recognised_by_its_content_and_gives_its_content(container: Container) -> None:
    file = COMPRESSORS[container](CONTENT)
    assert container_of(MemorySource(file)) is container
    assert unpack(file) == CONTENT


@CONTAINERS
def test_the_size_of_the_reads_does_not_matter(container: Container) -> None:
    assert unpack(COMPRESSORS[container](CONTENT), step_bytes=977) == CONTENT


@CONTAINERS
def test_several_compressed_files_end_to_end_are_one(container: Container) -> None:
    compress = COMPRESSORS[container]
    assert unpack(compress(CONTENT) + compress(b"") + compress(b"end")) == CONTENT + b"end"


@CONTAINERS
@pytest.mark.parametrize("missing", [1, 4, 9, 5000])
def test_a_compressed_file_that_ends_early_is_truncated(container: Container, missing: int) -> None:
    with pytest.raises(ImageFileError, match="truncated"):
        unpack(COMPRESSORS[container](CONTENT)[:-missing])


@CONTAINERS
def test_a_second_part_that_ends_early_is_truncated(container: Container) -> None:
    compress = COMPRESSORS[container]
    with pytest.raises(ImageFileError, match="truncated"):
        unpack(compress(CONTENT) + compress(CONTENT)[:-5])


@CONTAINERS
def test_a_flipped_bit_is_corruption(container: Container) -> None:
    file = bytearray(COMPRESSORS[container](CONTENT))
    file[len(file) // 2] ^= 0x10
    with pytest.raises(ImageFileError, match=r"corrupt|truncated"):
        unpack(bytes(file))


@CONTAINERS
def test_garbage_behind_the_end_is_corruption(container: Container) -> None:
    with pytest.raises(ImageFileError, match=r"corrupt|truncated"):
        unpack(COMPRESSORS[container](CONTENT) + b"garbage, long enough to be looked at")


@pytest.mark.parametrize("container", [Container.GZIP, Container.XZ])
def test_zeros_behind_the_end_are_padding(container: Container) -> None:
    assert unpack(COMPRESSORS[container](CONTENT) + bytes(1024)) == CONTENT


def test_a_zstd_file_may_start_with_a_skippable_frame() -> None:
    frame = (0x184D2A53).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    assert unpack(frame + COMPRESSORS[Container.ZSTD](CONTENT)) == CONTENT


def test_a_zstd_file_without_content_size_and_checksum_is_whole_at_its_end() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    file = compressor.compress(CONTENT) + compressor.flush()
    assert unpack(file) == CONTENT
    with pytest.raises(ImageFileError, match="truncated"):
        unpack(file[:-1])


def test_a_window_larger_than_an_import_may_take_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    file = compressor.compress(CONTENT) + compressor.flush()
    with pytest.raises(ImageFileError, match="128 MiB"):
        unpack(file)


@CONTAINERS
def test_a_bomb_is_read_in_bounded_memory(container: Container) -> None:
    file = COMPRESSORS[container](bytes(40 << 20))
    source = MemorySource(file)
    content = decompressed(source, container)
    tracemalloc.start()
    try:
        assert sum(len(content.read(1 << 20)) for _ in range(40)) == 40 << 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_plain_file_has_no_container() -> None:
    assert container_of(MemorySource(b"MSWIM")) is None
    assert container_of(MemorySource(b"")) is None


@CONTAINERS
@given(tail=st.binary(max_size=200), cut=st.integers(0, 200))
def test_no_bytes_make_it_raise_anything_but_its_own_error(container: Container, tail: bytes, cut: int) -> None:
    file = COMPRESSORS[container](b"some content" * 20)[:cut] + tail
    with suppress(ImageFileError):
        read_all(decompressed(MemorySource(file), container))
