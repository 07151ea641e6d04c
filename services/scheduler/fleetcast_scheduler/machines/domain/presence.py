"""Whether a machine is there, and what it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MachinePresence:
    """Whether a machine is there, and what it runs."""

    connected: bool = False
    contact_time: float | None = None
    current_run: str = ""
