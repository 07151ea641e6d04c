"""When a session starts: the rules, and what they decide at an instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Match(StrEnum):
    """How several rules combine."""

    ANY = "ANY"
    """The first rule that holds starts the session."""
    ALL = "ALL"
    """Every rule must hold."""


@dataclass(frozen=True, slots=True)
class StartRules:
    """What must hold before a session starts. None set: it starts with the first machine."""

    min_clients: int = 0
    """Machines that have joined and are there; 0 sets no such rule."""
    start_delay_seconds: float | None = None
    """Time since the first machine joined."""
    quiet_seconds: float | None = None
    """Time since the last machine joined."""
    start_time: float | None = None
    """An instant."""
    manual: bool = False
    """An operator must start it, unless another rule holds first under `Match.ANY`."""
    match: Match = Match.ANY


@dataclass(frozen=True, slots=True)
class PresentMachines:
    """How many machines are there, and since when."""

    present_count: int
    """Machines that have joined and are connected."""
    first_join_time: float | None
    last_join_time: float | None


@dataclass(frozen=True, slots=True)
class StartDecision:
    """What the rules say at one instant."""

    met: bool
    reason: str
    """Why not, in one sentence; empty when met."""
    due_time: float | None
    """When to ask again, if nothing happens before."""


@dataclass(frozen=True, slots=True)
class _Condition:
    met: bool
    text: str
    due_time: float | None = None


def evaluate(rules: StartRules, present: PresentMachines, now: float) -> StartDecision:
    """Returns whether a session with these rules starts at `now`. It never starts without a machine."""
    conditions = _conditions(rules, present, now)
    if not present.present_count:
        return StartDecision(
            met=False, reason=_sentence(rules, conditions) or "waits for the first machine", due_time=None
        )
    if not conditions:
        return StartDecision(met=True, reason="", due_time=None)
    open_conditions = [condition for condition in conditions if not condition.met]
    if not open_conditions or (rules.match is Match.ANY and len(open_conditions) < len(conditions)):
        return StartDecision(met=True, reason="", due_time=None)
    due_times = [condition.due_time for condition in open_conditions if condition.due_time is not None]
    if rules.match is Match.ANY:
        due_time = min(due_times, default=None)
    else:
        due_time = max(due_times, default=None) if len(due_times) == len(open_conditions) else None
    return StartDecision(met=False, reason=_sentence(rules, open_conditions), due_time=due_time)


def _conditions(rules: StartRules, present: PresentMachines, now: float) -> list[_Condition]:
    conditions = []
    if rules.min_clients:
        joined = present.present_count
        conditions.append(
            _Condition(joined >= rules.min_clients, f"{rules.min_clients} machines ({joined} joined so far)")
        )
    for seconds, since, event in (
        (rules.start_delay_seconds, present.first_join_time, "the first machine joined"),
        (rules.quiet_seconds, present.last_join_time, "the last machine joined"),
    ):
        if seconds is None:
            continue
        if since is None or not present.present_count:
            conditions.append(_Condition(met=False, text=f"{seconds:g} s after {event}"))
        else:
            due_time = since + seconds
            conditions.append(
                _Condition(now >= due_time, f"{format_time(due_time)} ({seconds:g} s after {event})", due_time)
            )
    if rules.start_time is not None:
        conditions.append(_Condition(now >= rules.start_time, format_time(rules.start_time), rules.start_time))
    if rules.manual:
        conditions.append(_Condition(met=False, text="an operator's start"))
    return conditions


def _sentence(rules: StartRules, conditions: list[_Condition]) -> str:
    if not conditions:
        return ""
    joint = " or " if rules.match is Match.ANY else " and "
    return "waits for " + joint.join(condition.text for condition in conditions)


def format_time(time: float) -> str:
    """Returns an instant for people, unambiguous: `2026-12-01 02:00:00 UTC`."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
