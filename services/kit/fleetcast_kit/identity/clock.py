"""Whether this host's clock can be right: what is certified by a wrong one is of no use once it is set."""

from __future__ import annotations

import ctypes
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.identity.certificates import CLOCK_TOLERANCE, now

_logger = logging.getLogger(__name__)

_UNSYNCHRONIZED = 5
"""TIME_ERROR of adjtimex(2)."""
_TIMEX_BYTES = 512
"""More than `struct timex` has on any architecture."""


def check_clock() -> None:
    """Looks at the clock before something is certified for years; says in the log what time that is by.

    Raises:
        FailedPreconditionError: it is before this program came onto the host, so it is wrong.
    """
    installed = _installation_time()
    if now() < installed - CLOCK_TOLERANCE:
        raise FailedPreconditionError(
            f"this host's clock says {now():%Y-%m-%d %H:%M} UTC, and this program was installed on "
            f"{installed:%Y-%m-%d}: set the clock, then start again; certificates made now would be of no use later",
            reason="CLOCK_WRONG",
        )
    if _is_unsynchronized():
        _logger.warning(
            "this host's clock says %s UTC, and no time service keeps it right: make sure that it is right, since the "
            "certificates that are made now count by it",
            f"{now():%Y-%m-%d %H:%M}",
        )


def _installation_time() -> datetime:
    try:
        return datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return datetime(2000, 1, 1, tzinfo=UTC)


def _is_unsynchronized() -> bool:
    """Returns whether the system knows of no time service that keeps the clock right; False if it cannot tell."""
    if sys.platform != "linux":
        return False
    try:
        asked = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: nothing is changed
        return bool(ctypes.CDLL(None, use_errno=True).adjtimex(asked) == _UNSYNCHRONIZED)
    except (OSError, AttributeError):
        return False
