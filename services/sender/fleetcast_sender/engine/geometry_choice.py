"""Which geometry a transmission gets: from the path, the image, and what its first receivers can take. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_wire.geometry import MAX_SYMBOL_BYTES, MAX_WINDOW_SYMBOLS, MIN_SYMBOL_BYTES, Geometry
from fleetcast_wire.packet import datagram_bytes
from fleetcast_wire.parity.fec import CODECS, Leopard

from fleetcast_sender.engine.messages import Join

_SYMBOL_BYTES = 1408
"""Passes paths of 1500 bytes with room for VLAN tags and tunnels, over IPv4 and IPv6."""
_LEAST_WINDOWS = 3
"""Windows that a receiver should hold: one that arrives, one in repair, one being written."""
_LEAST_CODEWORDS = 4
_MOST_PARITY_SYMBOLS = 256
_CODEWORDS = ((20, 500, 16), (100, 1000, 32), (1000, 1000, 64), (1 << 31, 1000, 128))
"""(receivers up to, k, D): the worst of many receivers meets longer bursts, and a longer window spreads them; few
need hardly more repair with short codewords, which take a fifth less time and leave windows in the cache."""


@dataclass(frozen=True)
class GeometryOverrides:
    """What an operator set; 0 leaves it to the sender."""

    symbol_bytes: int = 0
    codeword_symbols: int = 0
    window_codewords: int = 0


def choose_geometry(
    joins: Sequence[Join],
    *,
    receiver_count: int,
    stream_bytes: int,
    mtu_bytes: int,
    ip_version: int,
    overrides: GeometryOverrides,
) -> Geometry:
    """Returns the geometry for a transmission of so many bytes to so many receivers, of which `joins` are known.

    Receivers that it does not suit are served by unicast, so one of them must not spoil it for all: its limits count
    only down to what still works well.

    Raises:
        FailedPreconditionError: the interface's MTU leaves no room.
    """
    takers = [join for join in joins if not join.unicast_only]
    header_bytes = 28 if ip_version == 4 else 48
    payloads = [j.max_payload_bytes for j in takers if j.max_payload_bytes >= datagram_bytes(MIN_SYMBOL_BYTES)]
    largest = (min([mtu_bytes - header_bytes, *payloads]) - datagram_bytes(0)) // 64 * 64
    if largest < MIN_SYMBOL_BYTES:
        raise FailedPreconditionError(
            f"an MTU of {mtu_bytes} bytes leaves {largest} bytes for a symbol, at least {MIN_SYMBOL_BYTES} are needed"
        )
    symbol_bytes = min(largest, overrides.symbol_bytes or _SYMBOL_BYTES, MAX_SYMBOL_BYTES)
    usual_k, usual_d = next((k, d) for receivers, k, d in _CODEWORDS if receiver_count <= receivers)
    k = overrides.codeword_symbols or usual_k
    memory = min((j.window_memory_bytes for j in takers), default=1 << 40)
    fitting = max(memory // (_LEAST_WINDOWS * k * symbol_bytes), _LEAST_CODEWORDS)
    whole_image = max(1, -(-stream_bytes // (k * symbol_bytes)))
    window_codewords = min(overrides.window_codewords or usual_d, fitting, whole_image, MAX_WINDOW_SYMBOLS // k)
    codec = Leopard.name if Leopard.name in CODECS and all(Leopard.name in j.codecs for j in takers) else ""
    return Geometry(symbol_bytes, k, window_codewords, _parity_symbols(k) if codec else 0, codec)


def _parity_symbols(k: int) -> int:
    """Returns about a quarter of a codeword, the most that is repaired, as a power of two, which the codec likes."""
    return min(1 << max(0, round(math.log2(k / 4))), _MOST_PARITY_SYMBOLS)
