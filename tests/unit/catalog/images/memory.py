"""A source in memory."""

from fleetcast_catalog.images.importing.sources import Source


class MemorySource(Source):
    """The given bytes, at most `step_bytes` a read."""

    def __init__(self, content: bytes, step_bytes: int = 1 << 30) -> None:
        super().__init__()
        self._content = content
        self._step_bytes = step_bytes
        self._offset = 0

    def _read(self, buffer: memoryview) -> int:
        part = self._content[self._offset : self._offset + min(len(buffer), self._step_bytes)]
        buffer[: len(part)] = part
        self._offset += len(part)
        return len(part)


def read_all(source: Source, step_bytes: int = 100_000) -> bytes:
    """Returns everything that a source still has."""
    parts = []
    while part := source.read(step_bytes):
        parts.append(part)
    return b"".join(parts)
