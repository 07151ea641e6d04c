"""WIM and ESD files: their header, and what their XML data say about the images inside.

The format is public: Microsoft, "Windows Imaging File Format (WIM)", 2007; solid and pipable files as wimlib writes
them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from fleetcast_catalog.images.domain import WimImage, corrupt, truncated, unsupported

HEADER_BYTES = 208
MAGIC = b"MSWIM\0\0\0"
PIPABLE_MAGIC = b"WLPWM\0\0\0"
SOLID_VERSION = 0xE00

MAX_XML_BYTES = 16 << 20
"""Windows media with eleven editions have 30 KB."""
MAX_IMAGES = 1024
_MAX_TEXT_CHARACTERS = 4096
_MAX_DEPTH = 16
_MAX_ELEMENTS = 100_000

_WRITE_IN_PROGRESS = 0x40
_COMPRESSED_RESOURCE = 0x04
_MAX_INT64 = (1 << 63) - 1
# PROCESSOR_ARCHITECTURE_* of the Windows SDK.
_ARCHITECTURES = {"0": "x86", "5": "arm", "6": "ia64", "9": "x64", "12": "arm64"}

Read = Callable[[int, int], bytes]
"""`read(offset, size)` returns those bytes of the file; fewer only at its end."""


@dataclass(frozen=True)
class Extent:
    """Where in the file a resource lies."""

    offset: int
    size_bytes: int
    flags: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.size_bytes


@dataclass(frozen=True)
class Header:
    """What the first 208 bytes say. All extents are empty in the first header of a pipable file."""

    is_pipable: bool
    is_solid: bool
    image_count: int
    boot_index: int
    lookup_table: Extent
    xml: Extent
    boot_metadata: Extent
    integrity_table: Extent

    @classmethod
    def unpack(cls, header: bytes) -> Header:
        """Returns the parsed header.

        Raises:
            ImageFileError: it is cut short, contradicts itself, or is of a part or an unfinished file.
        """
        if len(header) < HEADER_BYTES:
            raise truncated(f"the header of a WIM has {HEADER_BYTES} bytes, the file {len(header)}")
        magic, size_bytes, version, flags = struct.unpack_from("<8sIII", header)
        if magic not in (MAGIC, PIPABLE_MAGIC) or size_bytes != HEADER_BYTES:
            raise corrupt("its WIM header is damaged")
        part, part_count, image_count = struct.unpack_from("<HHI", header, 40)
        if part_count > 1:
            raise unsupported(
                f"is part {part} of {part_count} of a split WIM: join the parts first, with wimlib-imagex join or DISM"
            )
        if flags & _WRITE_IN_PROGRESS:
            raise unsupported("was never finished by the program that wrote it: capture or export it again")
        if image_count > MAX_IMAGES:
            raise corrupt(f"it claims to hold {image_count} images; at most {MAX_IMAGES} are supported")
        (boot_index,) = struct.unpack_from("<I", header, 120)
        if boot_index > image_count:
            raise corrupt(f"it marks image {boot_index} of {image_count} as bootable")
        return cls(
            is_pipable=magic == PIPABLE_MAGIC,
            is_solid=version == SOLID_VERSION,
            image_count=image_count,
            boot_index=boot_index,
            lookup_table=_extent(header, 48),
            xml=_extent(header, 72),
            boot_metadata=_extent(header, 96),
            integrity_table=_extent(header, 124),
        )

    def check_size(self, size_bytes: int) -> None:
        """Checks that a file of `size_bytes` can hold what the header points to.

        Raises:
            ImageFileError: it ends before.
        """
        parts = (self.lookup_table, self.xml, self.boot_metadata, self.integrity_table)
        needed = max(part.end for part in parts if part.size_bytes or part is self.lookup_table)
        if needed > size_bytes:
            raise truncated(f"its header points to byte {needed}, the file has {size_bytes}")


def read_wim(read: Read, size_bytes: int) -> tuple[Header, tuple[WimImage, ...]]:
    """Returns the header that counts and the images inside a whole file of `size_bytes`.

    Raises:
        ImageFileError: the file is truncated or its tables are damaged.
    """
    header = Header.unpack(read(0, HEADER_BYTES))
    if header.is_pipable:
        # A pipable file was written front to back: the header that knows where things are is its last.
        trailer = read(max(size_bytes - HEADER_BYTES, 0), HEADER_BYTES)
        if not trailer.startswith(PIPABLE_MAGIC):
            raise truncated("the header that should end a pipable WIM is missing")
        header = Header.unpack(trailer)
    header.check_size(size_bytes)
    xml = header.xml
    if not xml.size_bytes or xml.flags & _COMPRESSED_RESOURCE or not header.lookup_table.size_bytes:
        raise corrupt("its header does not say where its tables are")
    if xml.size_bytes > MAX_XML_BYTES:
        raise corrupt(f"its XML data have {xml.size_bytes} bytes; at most {MAX_XML_BYTES} are supported")
    images = parse_xml(read(xml.offset, xml.size_bytes), header.boot_index)
    if len(images) != header.image_count:
        raise corrupt(f"its header counts {header.image_count} images, its XML data {len(images)}")
    return header, images


def parse_xml(xml: bytes, boot_index: int) -> tuple[WimImage, ...]:
    """Returns the images that XML data (UTF-16 with a byte order mark) describe, in order of their index.

    Raises:
        ImageFileError: the XML is not well-formed, not that of a WIM, or larger than any real one.
    """
    root = _Tree().parse(xml)
    if root.name != "WIM":
        raise corrupt(f"its XML data start with {root.name[:40]!r} instead of 'WIM'")
    images = [_image(element, boot_index) for element in root.children if element.name == "IMAGE"]
    images.sort(key=lambda image: image.index)
    if [image.index for image in images] != list(range(1, len(images) + 1)):
        raise corrupt("the images in its XML data are not numbered from 1")
    return tuple(images)


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    children: list[_Element] = field(default_factory=list)
    text: str = ""

    def find(self, *path: str) -> _Element | None:
        element: _Element | None = self
        for name in path:
            element = next((child for child in element.children if child.name == name), None) if element else None
        return element

    def text_at(self, *path: str) -> str:
        element = self.find(*path)
        return element.text.strip()[:_MAX_TEXT_CHARACTERS] if element else ""

    def count_at(self, *path: str) -> int:
        text = self.text_at(*path)
        return _count(text) if text else 0


class _Tree:
    """Builds elements from XML that may come from anybody: without entities and within bounds."""

    def __init__(self) -> None:
        self._root = _Element("", {})
        self._open = [self._root]
        self._element_count = 0

    def parse(self, xml: bytes) -> _Element:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        # Without a document type there are no entities to expand.
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            parser.Parse(xml, True)
        except (expat.ExpatError, ValueError) as error:
            raise corrupt(f"its XML data cannot be read ({error})") from error
        return self._root.children[0]

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._element_count += 1
        if len(self._open) > _MAX_DEPTH or self._element_count > _MAX_ELEMENTS:
            raise corrupt("its XML data are nested too deep or too long")
        element = _Element(name, attributes)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        element = self._open[-1]
        if len(element.text) < 2 * _MAX_TEXT_CHARACTERS:
            element.text += text[:_MAX_TEXT_CHARACTERS]

    def _doctype(self, *_: object) -> NoReturn:
        raise corrupt("its XML data declare a document type, which no WIM has")


def _image(element: _Element, boot_index: int) -> WimImage:
    index = _count(element.attributes.get("INDEX", "")[:20])
    language = ("WINDOWS", "LANGUAGES")
    languages_element = element.find(*language)
    default = element.text_at(*language, "DEFAULT")
    languages = [
        child.text.strip()[:_MAX_TEXT_CHARACTERS]
        for child in (languages_element.children if languages_element else [])
        if child.name == "LANGUAGE"
    ]
    return WimImage(
        index=index,
        display_name=element.text_at("NAME"),
        description=element.text_at("DESCRIPTION"),
        edition=element.text_at("WINDOWS", "EDITIONID"),
        architecture=_ARCHITECTURES.get(element.text_at("WINDOWS", "ARCH"), ""),
        languages=tuple(sorted(filter(None, dict.fromkeys(languages)), key=lambda name: name != default)),
        total_bytes=element.count_at("TOTALBYTES"),
        file_count=element.count_at("FILECOUNT"),
        directory_count=element.count_at("DIRCOUNT"),
        version=_version(element),
        bootable=index == boot_index,
    )


def _version(image: _Element) -> str:
    parts = [image.text_at("WINDOWS", "VERSION", name) for name in ("MAJOR", "MINOR", "BUILD", "SPBUILD")]
    return ".".join(str(_count(part or "0")) for part in parts) if any(parts) else ""


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _MAX_INT64:
        raise corrupt(f"its XML data have {text[:40]!r} where a number belongs")
    return int(text)


def _extent(header: bytes, position: int) -> Extent:
    size_and_flags, offset = struct.unpack_from("<QQ", header, position)
    return Extent(offset, size_and_flags & ((1 << 56) - 1), size_and_flags >> 56)
