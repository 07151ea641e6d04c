"""Phases of a roll-out as people write them: `10%,success=90%,manual`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from fleetcast.scheduler.v1.deployment_pb2 import Phase
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import format_duration, parse_duration

PHASE_HELP = (
    "PHASE is SIZE[,success=PERCENT][,after=DURATION][,manual], such as '10%,success=90%,manual' or '50,after=1d': how "
    "many machines it reaches, those of earlier phases included. When so many per cent of them succeeded (95% "
    "without), the next phase begins: after a while, or when 'deployment advance' says so. Who is left comes last."
)

_FIELD = "phase"


def parse_phases(texts: Sequence[str] | None) -> list[Phase]:
    """Returns the phases that `texts` say.

    Raises:
        InvalidArgumentError: one says none, or is not larger than the one before.
    """
    phases = [_phase(text) for text in texts or ()]
    for before, after in pairwise(phases):
        kind = after.WhichOneof("size")
        if kind == before.WhichOneof("size") and getattr(after, str(kind)) <= getattr(before, str(kind)):
            raise InvalidArgumentError(
                f"the phase {format_phase(after)!r} is not larger than {format_phase(before)!r} before it: sizes "
                "include the machines of earlier phases",
                field=_FIELD,
            )
    return phases


def format_phase(phase: Phase) -> str:
    """Returns a phase as it is written."""
    parts = [f"{phase.percent}%" if phase.WhichOneof("size") == "percent" else str(phase.count)]
    if phase.success_percent:
        parts.append(f"success={phase.success_percent}%")
    if phase.delay.ByteSize():
        parts.append(f"after={format_duration(phase.delay.ToTimedelta())}")
    return ",".join(parts + (["manual"] if phase.manual else []))


def _phase(text: str) -> Phase:
    size, *options = (part.strip() for part in text.split(","))
    phase = Phase()
    number = _number(size, text, "its size")
    if size.endswith("%"):
        phase.percent = number
    else:
        phase.count = number
    if number < 1 or (size.endswith("%") and number > 100):
        raise InvalidArgumentError(
            f"{text!r} is not a phase: its size is 1% to 100%, or 1 or more machines", field=_FIELD
        )
    for option in options:
        name, _, value = option.partition("=")
        if name == "success":
            phase.success_percent = _number(value, text, "success")
            if not 1 <= phase.success_percent <= 100:
                raise InvalidArgumentError(f"{text!r} is not a phase: success is 1% to 100%", field=_FIELD)
        elif name == "after":
            phase.delay.FromTimedelta(parse_duration(value, field=_FIELD))
        elif option == "manual":
            phase.manual = True
        else:
            raise InvalidArgumentError(
                f"{option!r} in {text!r} is not known: write SIZE[,success=PERCENT][,after=DURATION][,manual]",
                field=_FIELD,
            )
    return phase


def _number(value: str, text: str, what: str) -> int:
    match = re.fullmatch(r"(\d{1,6})\s*%?", value, re.ASCII)
    if match is None:
        raise InvalidArgumentError(f"{text!r} is not a phase: {what} is not a number, like 10% or 50", field=_FIELD)
    return int(match[1])
