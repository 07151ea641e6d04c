"""Fixed VHD files: a raw disk with 512 bytes behind it that say what it is.

Microsoft, "Virtual Hard Disk Image Format Specification", 2006, "Hard Disk Footer Format".
"""

from __future__ import annotations

import struct

from fleetcast_catalog.images.domain import ImageFormat, unsupported
from fleetcast_catalog.images.importing.formats.foreign import APPLE_TRAILER, apple_disk
from fleetcast_catalog.images.importing.sources import FileSource, Source

FOOTER_BYTES = 512
_FIXED_DISK = 2


def is_vhd_footer(footer: bytes) -> bool:
    """Returns whether 512 bytes are the footer of a VHD, checksum included."""
    if len(footer) != FOOTER_BYTES or not footer.startswith(b"conectix"):
        return False
    (checksum,) = struct.unpack_from(">I", footer, 64)
    return bool(checksum == ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF)


class RawDisk(Source):
    """Raw data, whose last 512 bytes are looked at: the footer of a fixed VHD does not belong to the disk.

    Raises when it is made of a file, or else when it is read to its end:
        ImageFileError: the end says that it is an Apple disk image.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._held = b""
        self._ended = False
        self.format = ImageFormat.RAW
        """VHD once the footer was seen."""
        if isinstance(source, FileSource):
            source.end_at(source.size_bytes - self._footer_bytes(source.last(FOOTER_BYTES)))

    @property
    def input_bytes(self) -> int:
        """Bytes of the file or upload consumed so far, for progress."""
        return self._source.input_bytes

    def skip_hole(self, size_bytes: int) -> bool:
        """Passes the next `size_bytes` and returns True if they are known to be zero without reading them."""
        if not self._source.skip_hole(size_bytes):
            return False
        self.position_bytes += size_bytes
        return True

    def _read(self, buffer: memoryview) -> int:
        if isinstance(self._source, FileSource):
            return self._source.read_into(buffer)
        # Of a stream nobody knows which are the last bytes: as many as a footer has are always held back.
        while not self._ended and len(self._held) <= FOOTER_BYTES:
            more = self._source.read(len(buffer))
            self._held += more
            self._ended = len(more) < len(buffer)
            if self._ended:
                self._held = self._held[: len(self._held) - self._footer_bytes(self._held[-FOOTER_BYTES:])]
        given = min(len(buffer), len(self._held) - (0 if self._ended else FOOTER_BYTES))
        buffer[:given] = self._held[:given]
        self._held = self._held[given:]
        return given

    def _footer_bytes(self, last: bytes) -> int:
        """Returns how many of the last bytes do not belong to the disk."""
        if len(last) == FOOTER_BYTES and last.startswith(APPLE_TRAILER):  # the trailer is as long as a VHD's footer
            what, way_out = apple_disk()
            raise unsupported(f"is {what}: {way_out}; or give the format raw to take it byte for byte")
        if not is_vhd_footer(last) or struct.unpack_from(">I", last, 60)[0] != _FIXED_DISK:
            return 0
        self.format = ImageFormat.VHD
        return FOOTER_BYTES
