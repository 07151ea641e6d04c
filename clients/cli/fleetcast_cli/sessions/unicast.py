"""Why machines are served by unicast, in one sentence for each reason, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetcast.scheduler.v1 import session_pb2
from fleetcast.scheduler.v1.session_pb2 import Participant, UnicastMachines

from fleetcast_cli.shell.text import plural


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of a reason."""

    why: str
    to_do: str


_SWITCH = "look at the interface in `fleetcast sender show`; a switch with IGMP snooping needs a querier"
_NOTHING = "nothing to do"

_WORDS = {
    session_pb2.UNICAST_REASON_NO_MULTICAST: _Words("takes no multicast", _SWITCH),
    session_pb2.UNICAST_REASON_OPERATOR: _Words("an operator decided so", _NOTHING),
    session_pb2.UNICAST_REASON_LIMITS: _Words(
        "cannot take the datagrams of the group",
        "update its agent; else it has too little memory, or a network with very small packets",
    ),
    session_pb2.UNICAST_REASON_DEAF: _Words(
        "hears nothing of the group",
        f"{_SWITCH}, and a firewall must let UDP in; the machine tries the group again by itself",
    ),
    session_pb2.UNICAST_REASON_SLOW: _Words(
        "slower than the others",
        "look at its cable, port speed and disk; `--slow-policy` of the session decides what becomes of slow machines",
    ),
    session_pb2.UNICAST_REASON_NO_ANSWER: _Words(
        "has not said for long what it holds",
        "look at the load of the machine and at its network; it returns to the group by itself",
    ),
    session_pb2.UNICAST_REASON_NO_PROGRESS: _Words(
        "several passes brought it nothing",
        "look at its cable, its network card and the switch for lost packets; it returns to the group by itself",
    ),
    session_pb2.UNICAST_REASON_ALONE: _Words("no other machine lacks anything now", _NOTHING),
    session_pb2.UNICAST_REASON_SMALL_REST: _Words("so little is lacking that a pass would take longer", _NOTHING),
}


def by_unicast(participant: Participant) -> bool:
    """Returns whether a machine gets chunks by unicast."""
    return participant.unicast or participant.unicast_reason in _WORDS


def unicast_remark(participant: Participant) -> str:
    """Returns that a machine gets chunks by unicast, and why; empty if it does not."""
    return f"by unicast: {_why(participant)}" if by_unicast(participant) else ""


def lasting_reason(participant: Participant) -> session_pb2.UnicastReason.ValueType:
    """Returns why a machine gets chunks by unicast, if that is not of the moment and needs nobody's attention."""
    of_the_moment = (session_pb2.UNICAST_REASON_ALONE, session_pb2.UNICAST_REASON_SMALL_REST)
    reason = participant.unicast_reason
    return session_pb2.UNICAST_REASON_UNSPECIFIED if reason in of_the_moment else reason


def unicast_fields(participants: Sequence[Participant]) -> list[tuple[str, str]]:
    """Returns why machines are served by unicast, how many for each reason, and what to do; empty if none is."""
    served = [participant for participant in participants if by_unicast(participant)]
    reasons = Counter((_why(participant), _words(participant).to_do) for participant in served)
    return [
        ("by unicast", f"{plural(count, 'machine')}: {why}; {to_do}") for (why, to_do), count in reasons.most_common()
    ]


def unicast_lines(groups: Iterable[UnicastMachines]) -> list[str]:
    """Returns a line for each reason for which a sender serves machines by unicast: how many, why, what to do."""
    return [
        f"{plural(group.machine_count, 'machine')} by unicast: {words.why}; {words.to_do}"
        for group in groups
        if (words := _WORDS.get(group.reason))
    ]


def _words(participant: Participant) -> _Words:
    """Returns what is said of a machine's reason; a sender that is older than the reasons does not say it."""
    if words := _WORDS.get(participant.unicast_reason):
        return words
    silent = bool(participant.no_multicast_reason)
    return _WORDS[session_pb2.UNICAST_REASON_NO_MULTICAST if silent else session_pb2.UNICAST_REASON_OPERATOR]


def _why(participant: Participant) -> str:
    """Returns the machine's own words where the reason is what it said itself."""
    words = _words(participant)
    takes_none = words is _WORDS[session_pb2.UNICAST_REASON_NO_MULTICAST]
    return participant.no_multicast_reason if takes_none and participant.no_multicast_reason else words.why
