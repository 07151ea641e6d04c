"""Compressed image files, decompressed while they are read: gzip, bzip2, xz, lzma and zstd."""

from __future__ import annotations

import bz2
import lzma
import zlib
from abc import abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import IO, Protocol, cast

import zstandard

from fleetcast_catalog.images.domain import ImageFileError, corrupt, truncated
from fleetcast_catalog.images.importing.sources import Source

_INPUT_BYTES = 256 << 10
# What `xz -9` (65 MiB) and `zstd --long` (128 MiB) need; an import must stay under 300 MB in all.
_MAX_WINDOW_BYTES = 128 << 20


class Container(StrEnum):
    """How a file is compressed."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    ZSTD = "zstd"


_MAGICS = {
    b"\x1f\x8b\x08": Container.GZIP,
    b"BZh": Container.BZIP2,
    b"\xfd7zXZ\x00": Container.XZ,
    b"\x28\xb5\x2f\xfd": Container.ZSTD,
}
_SKIPPABLE_MAGICS = range(0x184D2A50, 0x184D2A60)
_FRAME_MAGIC = 0xFD2FB528


def container_of(source: Source) -> Container | None:
    """Returns how the bytes of `source` are compressed, by their start; None if they are not."""
    head = source.peek(13)
    for magic, container in _MAGICS.items():
        if head.startswith(magic):
            return container
    # RFC 8878 section 3.1.2: a zstd file may start with a skippable frame.
    if len(head) >= 8 and int.from_bytes(head[:4], "little") in _SKIPPABLE_MAGICS:
        return Container.ZSTD
    # The LZMA SDK's lzma-file-format.txt: properties of every encoder, and the size that those for streams write.
    if head.startswith(b"\x5d\x00\x00") and head[5:] == b"\xff" * 8:
        return Container.LZMA
    return None


def decompressed(source: Source, container: Container) -> Source:
    """Returns the content of `source`, whose reads raise ImageFileError where the compressed file is broken."""
    match container:
        case Container.GZIP:
            return _Members(source, container, _Gzip)
        case Container.BZIP2:
            return _Members(source, container, bz2.BZ2Decompressor)
        case Container.XZ:
            return _Members(source, container, _xz)
        case Container.LZMA:
            return _Members(source, container, _lzma)
        case Container.ZSTD:
            return _Frames(source)


class _Decompressed(Source):
    def __init__(self, source: Source, container: Container) -> None:
        super().__init__()
        self._source = source
        self._container = container

    @property
    def input_bytes(self) -> int:
        return self._source.input_bytes

    def _read(self, buffer: memoryview) -> int:
        try:
            return self._decompress(buffer)
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the file; bzip2's decoder raises one without a number
            if "emory" in str(error):
                raise self._too_demanding() from error
            raise corrupt(f"its {self._container} data cannot be decompressed ({error})") from error

    @abstractmethod
    def _decompress(self, buffer: memoryview) -> int:
        """Does what `_read` does; may let the decompressor's own errors out."""

    def _cut_short(self) -> ImageFileError:
        return truncated(f"its {self._container} data break off after {self._source.position_bytes} bytes")

    def _too_demanding(self) -> ImageFileError:
        return ImageFileError(
            f"needs more than {_MAX_WINDOW_BYTES >> 20} MiB of memory to decompress: compress it with a smaller window",
            reason="IMAGE_UNSUPPORTED",
        )


class _Decoder(Protocol):
    """What the decoders of one gzip member and one xz stream have in common: the interface of lzma."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's decoder with lzma's interface."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_WINDOW_BYTES)


def _lzma() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_WINDOW_BYTES)


class _Members(_Decompressed):
    """gzip members, or bzip2 or xz streams, one after the other, perhaps padded with zeros."""

    def __init__(self, source: Source, container: Container, decoder: Callable[[], _Decoder]) -> None:
        super().__init__(source, container)
        self._new_decoder = decoder
        self._decoder = decoder()
        self._unused = b""

    def _decompress(self, buffer: memoryview) -> int:
        while True:
            if self._decoder.eof and not self._next_member():
                return 0
            data = b""
            if self._decoder.needs_input:
                data = self._unused or self._source.read(_INPUT_BYTES)
                self._unused = b""
                if not data:
                    raise self._cut_short()
            content = self._decoder.decompress(data, len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _next_member(self) -> bool:
        """Starts the next member and returns True, or returns False at the end of the file."""
        rest = self._decoder.unused_data.lstrip(b"\x00")
        while not rest:
            data = self._source.read(_INPUT_BYTES)
            if not data:
                return False
            rest = data.lstrip(b"\x00")
        self._decoder = self._new_decoder()
        self._unused = rest
        return True


class _Frames(_Decompressed):
    """zstd frames, one after the other."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, Container.ZSTD)
        self._scan = _FrameScan()
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        tap = cast("IO[bytes]", self._Tap(self))
        self._reader = decompressor.stream_reader(tap, read_size=_INPUT_BYTES, read_across_frames=True)

    class _Tap:
        """What the decompressor reads from: shows every byte to the scan."""

        def __init__(self, frames: _Frames) -> None:
            self._frames = frames

        def read(self, size: int) -> bytes:
            data = self._frames._source.read(size)
            self._frames._scan.feed(data)
            return data

    def _decompress(self, buffer: memoryview) -> int:
        count: int = self._reader.readinto(buffer)
        if count == 0 and not self._scan.at_boundary:
            raise self._cut_short()
        return count


class _FrameScan:
    """Follows the structure of zstd frames (RFC 8878 section 3.1): the decompressor does not tell a truncated file.

    It trusts what it sees: whatever is not well-formed the decompressor refuses.
    """

    def __init__(self) -> None:
        self._skip = 0
        self._partial = b""
        self._need = 4
        self._step: Callable[[bytes], None] = self._magic
        self._has_checksum = False

    @property
    def at_boundary(self) -> bool:
        """True when everything seen so far is whole frames."""
        return self._step == self._magic and not self._partial and not self._skip

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the file."""
        position = 0
        while position < len(data):
            if self._skip:
                passed = min(self._skip, len(data) - position)
                self._skip -= passed
            else:
                passed = min(self._need - len(self._partial), len(data) - position)
                self._partial += data[position : position + passed]
                if len(self._partial) == self._need:
                    field, self._partial = self._partial, b""
                    self._step(field)
            position += passed

    def _expect(self, size_bytes: int, step: Callable[[bytes], None]) -> None:
        self._need, self._step = size_bytes, step

    def _magic(self, field: bytes) -> None:
        if int.from_bytes(field, "little") == _FRAME_MAGIC:
            self._expect(1, self._frame_header)
        else:
            self._expect(4, self._skippable_size)

    def _skippable_size(self, field: bytes) -> None:
        self._skip = int.from_bytes(field, "little")
        self._expect(4, self._magic)

    def _frame_header(self, field: bytes) -> None:
        descriptor = field[0]
        single_segment = bool(descriptor & 0x20)
        self._has_checksum = bool(descriptor & 0x04)
        content_size_bytes = (int(single_segment), 2, 4, 8)[descriptor >> 6]
        dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
        self._skip = (not single_segment) + dictionary_bytes + content_size_bytes
        self._expect(3, self._block_header)

    def _block_header(self, field: bytes) -> None:
        header = int.from_bytes(field, "little")
        is_run = (header >> 1) & 3 == 1
        self._skip = 1 if is_run else header >> 3
        if header & 1:
            self._skip += 4 * self._has_checksum
            self._expect(4, self._magic)
