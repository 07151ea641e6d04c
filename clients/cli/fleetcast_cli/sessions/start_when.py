"""When a session starts, as people write it: `clients>=30 or delay 10m`."""

from __future__ import annotations

import re

from fleetcast.scheduler.v1.session_pb2 import StartRules
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import parse_duration

from fleetcast_cli.shell.instants import Clock

MAX_CLIENTS = 100_000
FIELD = "--start-when"

START_WHEN_HELP = (
    "EXPR is rules joined by 'or' (the first that holds starts the session) or by 'and' (all must hold): "
    "clients>=30 (so many machines are there), delay 10m (so long after the first machine joined), "
    "quiet 2m (so long after the last one joined), at TIME, manual (when 'session start' says so). "
    "'any:' or 'all:' before a list with commas says the same, as in 'all: clients>=20, quiet 2m'. "
    "'first machine' is no rule."
)

_PREFIX = re.compile(r"(any|all)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_JOINT = re.compile(r"\s*,\s*|\s+(?:and|or)\s+|\s*(?:&&|\|\|)\s*", re.IGNORECASE)
_CLIENTS = re.compile(
    r"(?:clients|machines)\s*(?:>=|=>|:)?\s*(\d+)|(\d+)\s*(?:clients|machines)", re.IGNORECASE | re.ASCII
)
_LENGTH = re.compile(r"(delay|quiet)\s*(?:>=|:)?\s*(\S.*)", re.IGNORECASE)
_AT = re.compile(r"at\s+(\S.*)", re.IGNORECASE)


def parse_start_when(text: str, clock: Clock) -> StartRules:
    """Returns the start rules that `text` says.

    Raises:
        InvalidArgumentError: a rule is not known, comes twice, or 'and' and 'or' are mixed.
    """
    body = " ".join(text.split())
    if body.lower() in ("first machine", "first"):
        return StartRules()
    prefix = _PREFIX.fullmatch(body)
    joints = {
        joint.strip().lower().replace("&&", "and").replace("||", "or")
        for joint in _JOINT.findall(prefix[2] if prefix else body)
    }
    rules = StartRules(match=_match(text, prefix[1].lower() if prefix else "", joints))
    given: set[str] = set()
    for part in _JOINT.split(prefix[2] if prefix else body):
        kind = _apply(rules, part.strip(), text, clock)
        if kind in given:
            raise InvalidArgumentError(f"{text!r} has the rule {kind!r} twice: give each rule once", field=FIELD)
        given.add(kind)
    return rules


def _match(text: str, prefix: str, joints: set[str]) -> StartRules.Match.ValueType:
    words = joints - {","}
    if "," in joints and not prefix:
        raise InvalidArgumentError(
            f"{text!r} leaves open whether one rule or all must hold: write 'any:' or 'all:' before it, or join "
            "the rules by 'or' or 'and'",
            field=FIELD,
        )
    if len(words) > 1 or (prefix == "any" and "and" in words) or (prefix == "all" and "or" in words):
        raise InvalidArgumentError(
            f"{text!r} mixes 'and' and 'or': a session starts when one of its rules holds (or) or when all hold (and); "
            "choose one",
            field=FIELD,
        )
    return StartRules.MATCH_ALL if prefix == "all" or "and" in words else StartRules.MATCH_ANY


def _apply(rules: StartRules, part: str, text: str, clock: Clock) -> str:
    """Sets the rule that `part` says and returns its kind."""
    if match := _CLIENTS.fullmatch(part):
        count = int(match[1] or match[2])
        if not 1 <= count <= MAX_CLIENTS:
            raise InvalidArgumentError(f"{part!r} is not a rule: the number is 1 to {MAX_CLIENTS}", field=FIELD)
        rules.min_clients = count
        return "clients"
    if match := _LENGTH.fullmatch(part):
        kind, length = match[1].lower(), parse_duration(match[2], field=FIELD)
        (rules.start_delay if kind == "delay" else rules.quiet_time).FromTimedelta(length)
        return kind
    if match := _AT.fullmatch(part):
        rules.start_time.FromDatetime(clock.future(FIELD, match[1]))
        return "at"
    if part.lower() == "manual":
        rules.manual = True
        return "manual"
    where = "" if part == text.strip() else f" in {text!r}"
    hint = "; parentheses cannot be used" if "(" in part or ")" in part else ""
    raise InvalidArgumentError(
        f"{part!r}{where} is not a start rule: write clients>=N, delay DURATION, quiet DURATION, at TIME or "
        f"manual{hint}",
        field=FIELD,
    )
