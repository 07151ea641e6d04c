"""Pipable WIM files, which wimlib applies from a pipe: what their beginning says.

The layout is wimlib's (`include/wimlib/wim.h`, "pipable WIMs"): the header, then a resource with the XML data, ahead of
the files; both again at the end, where other WIM files have them.
"""

from __future__ import annotations

import re
import struct
from xml.etree import ElementTree as ET

from fleetcast_agent.sequence.content.arriving import ArrivingFile
from fleetcast_agent.sequence.content.content import PIPABLE_MAGIC

_HEADER_BYTES = 208
_RESOURCE = struct.Struct("<QQ20sI")
"""Magic number, size of the content, its SHA-1, flags; little-endian."""
_RESOURCE_MAGIC = 0x2B9B9BA2443DB9D8
_COMPRESSED = 0x04
_MAX_XML_BYTES = 16 << 20
"""Windows media with eleven editions have 30 KB."""
_DOCTYPE = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


async def image_names(file: ArrivingFile) -> list[str] | None:
    """Returns the names of the images in a pipable WIM, in order of their index, once its beginning is there.

    None if it is no pipable WIM, or not one as wimlib writes them: then it has to be whole before it is applied.
    """
    if not (await file.head(len(PIPABLE_MAGIC))).startswith(PIPABLE_MAGIC):
        return None
    begin = _HEADER_BYTES + _RESOURCE.size
    head = await file.head(begin)
    if len(head) < begin:
        return None
    magic, xml_bytes, _, flags = _RESOURCE.unpack_from(head, _HEADER_BYTES)
    if magic != _RESOURCE_MAGIC or flags & _COMPRESSED or xml_bytes > _MAX_XML_BYTES:
        return None
    return _names((await file.head(begin + xml_bytes))[begin:])


def holds(names: list[str], index: str) -> bool:
    """Returns whether one of the images that have these names is meant by its index or name."""
    return index in names or index in map(str, range(1, len(names) + 1))


def _names(xml: bytes) -> list[str] | None:
    try:
        text = xml.decode("utf-16")
        if _DOCTYPE.search(text):
            return None
        images = ET.fromstring(text).findall("IMAGE")  # noqa: S314 - without a document type there are no entities
        by_index = {int(image.get("INDEX", "")): image.findtext("NAME", "") for image in images}
    except (ET.ParseError, ValueError):
        return None
    return [name for _, name in sorted(by_index.items())] if set(by_index) == set(range(1, len(images) + 1)) else None
