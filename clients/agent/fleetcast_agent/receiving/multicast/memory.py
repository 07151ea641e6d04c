"""How much memory goes where."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import psutil
from fleetcast_wire.geometry import Geometry

from fleetcast_agent.receiving.multicast.reception.windows import WindowMemories

if sys.platform != "win32":
    import resource

_PROCESS_BYTES = 96 << 20
"""Interpreter, libraries, gRPC, and the chunks in the writers' hands: measured 85 to 95 MiB."""
_DEFAULT_BYTES = 384 << 20
_LEAST_WINDOWS_BYTES = 12 << 20
_VIEW_BYTES = 200
"""A memoryview of one symbol, with its place in a list."""
_MAX_WINDOWS = 16
_RECEIVE_BUFFER_BYTES = 64 << 20
"""Half a second at 1 Gbit/s: as long as a busy machine may keep the receiving thread waiting."""


def peak_memory_bytes() -> int:
    """Returns the most memory that this process had in use."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class MemoryPlan:
    """What this process may use."""

    windows_bytes: int
    """For windows of symbols."""
    receive_buffer_bytes: int
    """Of the kernel's memory, for the socket."""

    @staticmethod
    def of(limit_bytes: int = 0) -> MemoryPlan:
        """Returns the plan for a process of about `limit_bytes` in all; 0 chooses by the machine's memory."""
        total = limit_bytes or min(_DEFAULT_BYTES, psutil.virtual_memory().total // 3)
        windows = max(total - _PROCESS_BYTES, _LEAST_WINDOWS_BYTES, total // 4)
        return MemoryPlan(windows, _RECEIVE_BUFFER_BYTES if total >= _DEFAULT_BYTES else _RECEIVE_BUFFER_BYTES // 4)

    @property
    def symbols_bytes(self) -> int:
        """Bytes of symbols that fit `windows_bytes` beside their views, at the usual 1408 bytes a symbol."""
        return self.windows_bytes * 1408 // (1408 + _VIEW_BYTES)

    def memories(self, geometry: Geometry, largest_window_symbols: int) -> WindowMemories:
        """Returns the memory of as many windows as fit, at least two."""
        symbols = min(geometry.window_symbols, largest_window_symbols)
        count = self.windows_bytes // (symbols * (geometry.symbol_bytes + _VIEW_BYTES))
        return WindowMemories(geometry, symbols, min(max(count, 2), _MAX_WINDOWS))
