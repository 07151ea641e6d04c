"""Which machines a session admits, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LatePolicy(StrEnum):
    """What becomes of a machine that joins after the session started."""

    JOIN = "JOIN"
    NEXT_RUN = "NEXT_RUN"
    REFUSE = "REFUSE"


class EndPolicy(StrEnum):
    """What becomes of the machines that still receive when `until_time` comes."""

    FINISH = "FINISH"
    STOP = "STOP"


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Which machines a session admits, and until when."""

    until_time: float | None = None
    late_policy: LatePolicy = LatePolicy.JOIN
    end_policy: EndPolicy = EndPolicy.FINISH
    max_participants: int = 0
    """Most machines that receive at once; 0 means no limit."""
