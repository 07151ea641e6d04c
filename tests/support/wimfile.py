"""WIM files made by hand, with any header and any XML: for parsers, and where wimlib is not installed."""

import struct
from dataclasses import dataclass

TWO_EDITIONS = """<WIM><TOTALBYTES>900</TOTALBYTES>
<IMAGE INDEX="1"><NAME>Windows 11 Pro</NAME><DESCRIPTION>für Büros</DESCRIPTION><DIRCOUNT>12</DIRCOUNT>
<FILECOUNT>345</FILECOUNT><TOTALBYTES>6789</TOTALBYTES><WINDOWS><ARCH>9</ARCH><EDITIONID>Professional</EDITIONID>
<LANGUAGES><LANGUAGE>en-US</LANGUAGE><LANGUAGE>de-DE</LANGUAGE><DEFAULT>de-DE</DEFAULT></LANGUAGES>
<VERSION><MAJOR>10</MAJOR><MINOR>0</MINOR><BUILD>22631</BUILD><SPBUILD>3007</SPBUILD></VERSION></WINDOWS></IMAGE>
<IMAGE INDEX="2"><NAME>Data</NAME><TOTALBYTES>1</TOTALBYTES></IMAGE></WIM>"""


@dataclass
class WimFile:
    """The parts of a WIM file; `pack` puts them together."""

    xml: str = TWO_EDITIONS
    image_count: int = 2
    boot_index: int = 0
    version: int = 0x10D00
    flags: int = 0x2
    part: tuple[int, int] = (1, 1)
    content: bytes = bytes(range(256)) * 40
    xml_bytes: bytes | None = None
    pipable: bool = False

    def pack(self) -> bytes:
        """Returns the file: header, content, lookup table, XML, and the header again if it is pipable."""
        xml = self.xml_bytes if self.xml_bytes is not None else b"\xff\xfe" + self.xml.encode("utf-16-le")
        lookup = bytes(50)
        lookup_offset = 208 + len(self.content)
        where = self._header((len(lookup), lookup_offset), (len(xml), lookup_offset + len(lookup)))
        if not self.pipable:
            return where + self.content + lookup + xml
        return self._header((0, 0), (0, 0)) + self.content + lookup + xml + where

    def _header(self, lookup: tuple[int, int], xml: tuple[int, int]) -> bytes:
        magic = b"WLPWM\0\0\0" if self.pipable else b"MSWIM\0\0\0"
        header = struct.pack("<8sIIII16sHHI", magic, 208, self.version, self.flags, 32768, bytes(16), *self.part, 0)
        header = header[:44] + struct.pack("<I", self.image_count)
        header += _extent(*lookup) + _extent(*xml) + _extent(0, 0) + struct.pack("<I", self.boot_index) + _extent(0, 0)
        return header.ljust(208, b"\0")


def _extent(size_bytes: int, offset: int) -> bytes:
    return struct.pack("<QQQ", size_bytes, offset, size_bytes)
