"""The compression of NTFS itself (LZNT1, [MS-XCA] 2.5), undone."""

from __future__ import annotations

_CHUNK_BYTES = 4096


def decompress(data: bytes, size_bytes: int) -> bytes:
    """Returns the `size_bytes` that were compressed; what the data do not reach reads as zeros.

    Raises:
        ValueError: the data are damaged.
    """
    content = bytearray()
    at = 0
    while at + 2 <= len(data) and len(content) < size_bytes:
        header = int.from_bytes(data[at : at + 2], "little")
        if not header:
            break
        end = at + 3 + (header & 0xFFF)
        chunk = data[at + 2 : end]
        if len(chunk) != end - at - 2:
            raise ValueError("compressed data end too early")
        content += _chunk(chunk) if header & 0x8000 else chunk
        content += bytes(-len(content) % _CHUNK_BYTES)
        at = end
    return bytes(content[:size_bytes]).ljust(size_bytes, b"\0")


def _chunk(data: bytes) -> bytearray:
    content = bytearray()
    at = 0
    while at < len(data):
        flags = data[at]
        at += 1
        for bit in range(8):
            if at >= len(data):
                break
            if not flags >> bit & 1:
                content.append(data[at])
                at += 1
                continue
            token = int.from_bytes(data[at : at + 2], "little")
            at += 2
            # The further into the chunk, the more bits say how far back, and the fewer how many.
            length_bits = 12 - max((len(content) - 1).bit_length() - 4, 0)
            distance, length = (token >> length_bits) + 1, (token & (1 << length_bits) - 1) + 3
            if distance > len(content) or len(content) + length > _CHUNK_BYTES:
                raise ValueError("compressed data lead outside their chunk")
            for _ in range(length):
                content.append(content[-distance])
    return content
