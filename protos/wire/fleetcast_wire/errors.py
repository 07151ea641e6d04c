"""What can be wrong with bytes that claim to follow WIRE.md."""


class WireError(Exception):
    """Bytes or numbers that do not follow WIRE.md."""


class PacketError(WireError):
    """A datagram that does not parse."""


class ManifestError(WireError):
    """A manifest or chunk table that is not consistent with itself or with its digest."""


class ChunkSetError(WireError):
    """A chunk set whose bitmap does not fit its chunk count."""


class GeometryError(WireError):
    """A geometry outside the limits, or a window or symbol outside its geometry."""


class RunsError(WireError):
    """Run-length coded values that do not fit the expected length."""
