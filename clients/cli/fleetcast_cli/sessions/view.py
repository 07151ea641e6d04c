"""A session and its machines for people: whole tables, and the lines that say what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleetcast.scheduler.v1 import session_pb2
from fleetcast.scheduler.v1.deployment_pb2 import SessionTemplate
from fleetcast.scheduler.v1.session_pb2 import Participant, Session
from fleetcast_kit.values.rates import format_rate
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fleetcast_cli.sessions.policies import (
    format_end,
    format_late_policy,
    format_rate_policy,
    format_slow_policy,
    format_start_rules,
)
from fleetcast_cli.sessions.unicast import lasting_reason, unicast_remark
from fleetcast_cli.shell.plain import short_name
from fleetcast_cli.shell.references import identifier, short_image
from fleetcast_cli.shell.text import (
    ABSENT,
    fields,
    format_bytes,
    format_clock,
    format_instant,
    format_percent,
    format_seconds,
    format_time,
    plural,
    table,
)

FINAL_STATES = frozenset({Session.STATE_COMPLETED, Session.STATE_CANCELLED, Session.STATE_FAILED})
"""States that a session does not leave."""

_STYLES = {
    Participant.STATE_RECEIVING: "cyan",
    Participant.STATE_SUCCEEDED: "green",
    Participant.STATE_FAILED: "bold red",
    Participant.STATE_LOST: "bold yellow",
    Participant.STATE_DISMISSED: "dim",
}
_ATTENTION = (
    Participant.STATE_FAILED,
    Participant.STATE_LOST,
    Participant.STATE_RECEIVING,
    Participant.STATE_WAITING,
    Participant.STATE_DISMISSED,
    Participant.STATE_SUCCEEDED,
)
"""Order of a table too long for the screen: who needs attention first."""

_STEP_PERCENT = 10
"""A change line for every so many percent of a machine."""


def session_fields(session: Session) -> list[tuple[str, str]]:
    """Returns names and values of what a session says about itself."""
    sent = session.transmission
    return [
        ("session", identifier(session.name)),
        ("image", f"{short_image(session.image)}, {format_bytes(session.image_size_bytes)}"),
        ("state", state_line(session)),
        ("mode", short_name(session, "mode")),
        ("deployment", identifier(session.deployment)),
        ("missing", _missing(session)),
        *rule_fields(session),
        ("sender", identifier(session.sender)),
        ("group", f"{sent.group}:{sent.port}" if sent.group else ""),
        ("warning", session.multicast_warning),
        ("sent", _sent(sent) if sent.name else ""),
        ("created", format_time(session.create_time)),
        ("started", format_time(session.start_time)),
        ("ended", format_time(session.end_time)),
    ]


def rule_fields(session: Session) -> list[tuple[str, str]]:
    """Returns names and values of what an operator set for a session."""
    repeats = f"{session.recurrence}, {session.recurrence_time_zone or 'UTC'}" if session.recurrence else ""
    return [
        ("starts with", format_start_rules(session.start_rules)),
        ("admits", "no more machines" if session.closed else ""),
        *template_fields(session),
        ("rate", format_rate_policy(session.rate)),
        ("repeats", repeats + (f"; next {format_instant(session.next_time)}" if session.HasField("next_time") else "")),
    ]


def template_fields(message: Session | SessionTemplate) -> list[tuple[str, str]]:
    """Returns names and values of what was set for a session, or for those of a deployment, besides the usual."""
    admission = message.admission
    rows = [
        ("admits until", format_end(admission)),
        ("late machines", format_late_policy(admission)),
        ("at once", f"{plural(admission.max_participants, 'machine')} at most" if admission.max_participants else ""),
        ("slow machines", format_slow_policy(message.slow_policy)),
        ("priority", f"{message.priority:+}" if message.priority else ""),
        ("site", f"{message.site} first" if message.site and message.any_site else message.site),
    ]
    if isinstance(message, SessionTemplate):
        usual = ("first machine", "auto")
        rows += [("starts with", format_start_rules(message.start_rules)), ("rate", format_rate_policy(message.rate))]
        rows = [(name, value) for name, value in rows if value not in usual]
    return rows


def state_line(session: Session) -> str:
    """Returns a session's state and the reason, how many machines are there and how many are missing."""
    parts = [short_name(session, "state")]
    if session.state == Session.STATE_RUNNING and session.transmission.rate_bits_per_second:
        parts.append(
            f"{format_rate(session.transmission.rate_bits_per_second)}, pass {getattr(session.transmission, 'pass')}"
        )
    parts.append(session.waiting_reason or session.error)
    missing = session.start_rules.min_clients - session.participant_count
    if session.state == Session.STATE_WAITING and missing > 0:
        parts.append(f"{missing} of {session.start_rules.min_clients} missing")
    else:
        machines = plural(session.participant_count, "machine")
        machines += f", {session.succeeded_count} succeeded" if session.succeeded_count else ""
        machines += f", {session.failed_count} failed" if session.failed_count else ""
        parts.append(machines)
    return "; ".join(filter(None, parts))


def machine_table(participants: Iterable[Participant], *, one_line: bool = False) -> Table:
    """Returns a table with one row for each machine, in the given order.

    With `one_line` the remark has the room that ids would take where a name says the same.
    """
    participants = list(participants)
    first = ["machine", "name"]
    if one_line and len({each.display_name for each in participants} - {""}) == len(participants):
        first.remove("machine")
    numbers = ("done", "rate", "loss", "left")
    rows = table(*first, "state", *numbers, "", right=numbers, one_line=one_line)
    for participant in participants:
        rows.add_row(
            *(identifier(participant.machine), participant.display_name or ABSENT)[-len(first) :],
            Text(short_name(participant, "state"), style=_STYLES.get(participant.state, "")),
            format_percent(participant.totals.written_bytes, participant.totals.size_bytes),
            _rate(participant),
            _loss(participant.totals),
            _left(participant),
            _remark(participant, one_line=one_line),
        )
    return rows


def screen(session: Session, participants: Mapping[str, Participant], *, rows: int, notice: str) -> Group:
    """Returns what fits on a terminal `rows` high: the session, those who need attention first, how many more.

    `notice` is a line for what is wrong with the view itself, such as a server that does not answer.
    """
    title = f"session {identifier(session.name)}  {short_image(session.image)}"
    parts: list[Text | Table] = [Text(title, style="bold"), Text(state_line(session))]
    if notice:
        parts.append(Text(notice, style="bold yellow"))
    by_attention = sorted(participants.values(), key=_attention)
    room = max(1, rows - len(parts) - 5)
    shown = by_attention[:room]
    if shown:
        parts += [Text(""), machine_table(shown, one_line=True)]
    if len(by_attention) > len(shown):
        parts.append(Text(f"and {plural(len(by_attention) - len(shown), 'more machine')}"))
    return Group(*parts)


def session_change(before: Session | None, after: Session) -> str | None:
    """Returns the line that says what changed in a session, or None if nothing that matters did."""
    if before is not None and (before.state, before.waiting_reason, before.participant_count) == (
        after.state,
        after.waiting_reason,
        after.participant_count,
    ):
        return None
    return f"session {identifier(after.name)}: {state_line(after)}"


def machine_change(before: Participant | None, after: Participant) -> str | None:
    """Returns the line that says what changed for a machine: its state, or another tenth of the image."""
    if before is not None and _shown(before) == _shown(after):
        return None
    name = after.display_name or identifier(after.machine)
    parts = [short_name(after, "state")]
    if after.totals.size_bytes:
        parts.append(format_percent(after.totals.written_bytes, after.totals.size_bytes))
    if after.state == Participant.STATE_RECEIVING:
        parts += [part for part in (_rate(after), f"loss {_loss(after.totals)}") if ABSENT not in part]
        parts += [f"{_left(after)} left"] if after.remaining_seconds >= 0 else []
    parts += filter(None, [_remark(after)])
    return f"{name} ({identifier(after.machine)}): {', '.join(parts)}"


def summary(session: Session, participants: Mapping[str, Participant]) -> Group:
    """Returns the end of a watch: the session and the table of all its machines."""
    rows = [("session", identifier(session.name)), ("state", state_line(session))]
    if session.transmission.name:
        rows.append(("sent", _sent(session.transmission)))
    return Group(fields(rows), Text(""), machine_table(sorted(participants.values(), key=_attention)))


def _attention(participant: Participant) -> tuple[int, int, str]:
    rank = _ATTENTION.index(participant.state) if participant.state in _ATTENTION else len(_ATTENTION)
    return rank, participant.totals.written_bytes, participant.display_name


def _shown(participant: Participant) -> tuple[object, ...]:
    """Returns what makes a new line when it changes."""
    return participant.state, lasting_reason(participant), _step(participant)


def _step(participant: Participant) -> int:
    totals = participant.totals
    return 100 * totals.written_bytes // totals.size_bytes // _STEP_PERCENT if totals.size_bytes else 0


def _rate(participant: Participant) -> str:
    moving = participant.state == Participant.STATE_RECEIVING and participant.rate_bytes_per_second > 0
    return f"{format_bytes(participant.rate_bytes_per_second)}/s" if moving else ABSENT


def _loss(totals: session_pb2.ReceptionTotals) -> str:
    """Returns the datagrams that did not arrive, in the network or on the host, as a share of those sent."""
    lost = totals.lost_datagram_count + totals.overflow_datagram_count
    sent = totals.datagram_count + lost
    return f"{100 * lost / sent:.2g} %" if sent else ABSENT


def _left(participant: Participant) -> str:
    known = participant.state == Participant.STATE_RECEIVING and participant.remaining_seconds >= 0
    return format_seconds(participant.remaining_seconds) if known else ABSENT


def _remark(participant: Participant, *, one_line: bool = False) -> str:
    if participant.state == Participant.STATE_LOST:
        since = format_clock(participant.contact_time) if one_line else format_time(participant.contact_time)
        return f"no contact since {since}"
    return participant.error or unicast_remark(participant)


def _missing(session: Session) -> str:
    if not session.missing_machines:
        return ""
    more = session.expected_count - session.participant_count - len(session.missing_machines)
    names = ", ".join(map(identifier, session.missing_machines))
    return f"{names} and {more} more" if more > 0 else names


def _sent(sent: session_pb2.Transmission) -> str:
    return (
        f"{format_bytes(sent.sent_source_bytes)} by multicast, {format_bytes(sent.sent_repair_bytes)} of repair, "
        f"{format_bytes(sent.sent_unicast_bytes)} by unicast, {plural(getattr(sent, 'pass'), 'pass')}"
    )
