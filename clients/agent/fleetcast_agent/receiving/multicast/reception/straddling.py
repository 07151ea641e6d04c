"""Chunks that lie in more than one window: their pieces are copied together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fleetcast_wire.geometry import PassLayout

from fleetcast_agent.receiving.multicast.reception.windows import Piece


@dataclass
class _Joint:
    stored: memoryview
    missing_bytes: int


class StraddlingChunks:
    """The chunks of one pass of which some windows are complete and others are not yet.

    Args:
        limit: most chunks that are kept; beyond it the one that lies foremost in the pass is forgotten.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._joints: dict[int, _Joint] = {}
        self._lost: set[int] = set()

    def clear(self) -> None:
        """Forget everything: another pass begins."""
        self._joints.clear()
        self._lost.clear()

    def possible(self, piece: Piece) -> bool:
        """Returns whether the chunk of a piece can still become whole in this pass."""
        return piece.position not in self._lost

    def add(self, layout: PassLayout, window: int, piece: Piece, stored: memoryview) -> memoryview | None:
        """Copy a piece of a chunk; return the stored chunk when this was the last one. Each piece comes once."""
        if not self.possible(piece):
            return None
        low, high = layout.offsets[piece.position : piece.position + 2].tolist()
        joint = self._joints.get(piece.position)
        if joint is None:
            if len(self._joints) >= self._limit:
                self.give_up(min(self._joints))
            joint = self._joints[piece.position] = _Joint(np.empty(high - low, np.uint8).data, high - low)
        start = max(0, layout.window_span(window)[0] - low)
        joint.stored[start : start + len(stored)] = stored
        joint.missing_bytes -= len(stored)
        if joint.missing_bytes:
            return None
        return self._joints.pop(piece.position).stored

    def give_up(self, position: int) -> None:
        """Forget a chunk: one of its windows will not become whole in this pass."""
        self._lost.add(position)
        self._joints.pop(position, None)

    def give_up_window(self, layout: PassLayout, window: int) -> None:
        """Forget the chunks that a window which was not taken shares with others."""
        positions = layout.window_chunks(window)
        for position in {positions.start, positions.stop - 1}:
            if len(layout.chunk_windows(position)) > 1:
                self.give_up(position)
