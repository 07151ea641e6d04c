"""When to try a call again."""

from __future__ import annotations

import grpc
from fleetcast_kit.values.jitter import jittered

TRANSIENT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
"""After these the same call may succeed later."""


def backoff_seconds(attempt: int) -> float:
    """Returns how long to wait before the attempt after `attempt` failures: jittered, 0.25 s to 8 s."""
    return jittered(min(8.0, 0.25 * 2.0 ** min(attempt, 10)))
