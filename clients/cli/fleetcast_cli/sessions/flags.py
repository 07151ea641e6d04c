"""The flags that say how a session goes: for `session create`, `session update` and `deploy` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from fleetcast.scheduler.v1.deployment_pb2 import SessionTemplate
from fleetcast.scheduler.v1.session_pb2 import Session, StartRules
from fleetcast.scheduler.v1.session_service_pb2 import CreateSessionRequest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values.durations import parse_duration
from fleetcast_kit.values.rates import parse_rate
from fleetcast_kit.values.times import TIME_HELP, local_zone

from fleetcast_cli.sessions.policies import NONE, AtEnd, Late, Match, parse_daily_ceilings, parse_slow_policy
from fleetcast_cli.sessions.start_when import MAX_CLIENTS, START_WHEN_HELP, parse_start_when
from fleetcast_cli.shell.command import Flags
from fleetcast_cli.shell.instants import Clock

_START, _ADMISSION, _RATE, _OTHER = "When it starts", "Whom it admits", "How fast it sends", "What else"


def _option(
    name: str, panel: str, text: str, *, metavar: str | None = None, least: int | None = None, most: int | None = None
) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, help=text, metavar=metavar, rich_help_panel=panel, show_default=False, min=least, max=most
    )
    return option


SESSION_HELP = f"{START_WHEN_HELP}\n\n{TIME_HELP}"
"""What the help of a command with these flags says at its end."""

Repeat = Annotated[
    str,
    _option(
        "--repeat",
        _START,
        "Opens again at each recurrence of --start-at: daily, weekdays, weekly, or a recurrence rule of iCalendar.",
        metavar="RULE",
    ),
]
RepeatZone = Annotated[
    str, _option("--repeat-zone", _START, "On whose clock it repeats; without it, the local one.", metavar="ZONE")
]


@dataclass(frozen=True)
class SessionFlags(Flags):
    """What was given on the command line; None is what was not."""

    start_when: Annotated[
        str | None,
        _option("--start-when", _START, "By rules such as 'clients>=30 or delay 10m'; see below.", metavar="EXPR"),
    ] = None
    min_clients: Annotated[
        int | None, _option("--min-clients", _START, "When N machines joined.", metavar="N", least=0, most=MAX_CLIENTS)
    ] = None
    start_delay: Annotated[
        str | None, _option("--start-delay", _START, "So long after the first machine joined.", metavar="DURATION")
    ] = None
    quiet_time: Annotated[
        str | None, _option("--quiet-time", _START, "So long after the last machine joined.", metavar="DURATION")
    ] = None
    start_at: Annotated[
        str | None, _option("--start-at", _START, "At a time; see below. 'none' removes it.", metavar="TIME")
    ] = None
    manual: Annotated[bool | None, _option("--manual/--not-manual", _START, "When 'session start' says so.")] = None
    match: Annotated[
        Match | None, _option("--match", _START, "Whether one of these flags' rules must hold (as usual) or all.")
    ] = None
    late: Annotated[
        Late | None,
        _option(
            "--late", _ADMISSION, "Machines that come after the start join, wait for the next run, or are refused."
        ),
    ] = None
    until: Annotated[
        str | None,
        _option("--until", _ADMISSION, "Admits machines until then; 'none' for ever.", metavar="TIME"),
    ] = None
    at_end: Annotated[
        AtEnd | None, _option("--at-end", _ADMISSION, "Machines that still receive then finish, or are stopped.")
    ] = None
    max_machines: Annotated[
        int | None,
        _option(
            "--max-machines",
            _ADMISSION,
            "Most machines that receive at once; more wait. 0: no limit.",
            metavar="N",
            least=0,
            most=MAX_CLIENTS,
        ),
    ] = None
    rate: Annotated[
        str | None, _option("--rate", _RATE, "A fixed rate such as 500M, or auto.", metavar="auto|BITS_PER_SECOND")
    ] = None
    max_rate: Annotated[
        str | None,
        _option("--max-rate", _RATE, "Never faster than this; 'none' for no ceiling.", metavar="BITS_PER_SECOND"),
    ] = None
    daily_ceiling: Annotated[
        list[str] | None,
        _option(
            "--daily-ceiling",
            _RATE,
            "Not faster than this at times of the day, such as 08:00-18:00=200M or 08:00-18:00=200M@Europe/Berlin; "
            "can be repeated. 'none' removes all.",
            metavar="FROM-TO=RATE[@ZONE]",
        ),
    ] = None
    priority: Annotated[
        int | None,
        _option(
            "--priority", _OTHER, "Sessions with more get a sender first.", metavar="-100..100", least=-100, most=100
        ),
    ] = None
    slow_policy: Annotated[
        str | None,
        _option(
            "--slow-policy",
            _OTHER,
            "Machines that cannot keep up stay (keep), go on by unicast, get a slower transmission (separate), or are "
            "taken out (disconnect); slow is below a threshold such as unicast:50M, or as the sender decides.",
            metavar="keep|unicast|separate|disconnect[:RATE]",
        ),
    ] = None
    site: Annotated[str | None, _option("--site", _OTHER, "Only senders of this site serve it.", metavar="NAME")] = None
    any_site: Annotated[
        bool | None,
        _option(
            "--any-site/--only-site",
            _OTHER,
            "Whether senders of other sites may serve it while no sender of --site is connected.",
        ),
    ] = None

    def apply(self, message: Session | SessionTemplate | CreateSessionRequest, clock: Clock) -> list[str]:
        """Sets in `message` what was given, and returns the paths of the fields it touched.

        Raises:
            InvalidArgumentError: a value is wrong, or two contradict each other.
        """
        paths = [*self._apply_start(message.start_rules, clock)]
        admission, rate = message.admission, message.rate
        if self.late is not None:
            admission.late_policy = self.late.message
            paths.append("admission.late_policy")
        if self.until is not None:
            if self.until.lower() != NONE:
                admission.until_time.FromDatetime(clock.future("--until", self.until))
            paths.append("admission.until_time")
        if self.at_end is not None:
            admission.end_policy = self.at_end.message
            paths.append("admission.end_policy")
        if self.max_machines is not None:
            admission.max_participants = self.max_machines
            paths.append("admission.max_participants")
        if self.rate is not None:
            rate.fixed_bits_per_second = 0 if self.rate == "auto" else parse_rate(self.rate, field="rate")
            paths.append("rate.fixed_bits_per_second")
        if self.max_rate is not None:
            rate.ceiling_bits_per_second = 0 if self.max_rate == NONE else parse_rate(self.max_rate, field="max_rate")
            paths.append("rate.ceiling_bits_per_second")
        if self.daily_ceiling:
            rate.daily_ceilings.extend(parse_daily_ceilings(self.daily_ceiling))
            paths.append("rate.daily_ceilings")
        if self.priority is not None:
            message.priority = self.priority
            paths.append("priority")
        if self.slow_policy is not None:
            message.slow_policy.CopyFrom(parse_slow_policy(self.slow_policy))
            paths.append("slow_policy")
        if self.site is not None:
            message.site = self.site
            paths.append("site")
        if self.any_site is not None:
            message.any_site = self.any_site
            paths.append("any_site")
        return paths

    def _apply_start(self, rules: StartRules, clock: Clock) -> list[str]:
        singly = {
            "--min-clients": self.min_clients,
            "--start-delay": self.start_delay,
            "--quiet-time": self.quiet_time,
            "--start-at": self.start_at,
            "--manual": self.manual,
            "--match": self.match,
        }
        given = [flag for flag, value in singly.items() if value is not None]
        if self.start_when is not None:
            if given:
                raise InvalidArgumentError(
                    f"--start-when and {given[0]} both say when it starts: write all of it into --start-when",
                    field="start_when",
                )
            rules.CopyFrom(parse_start_when(self.start_when, clock))
            return ["start_rules"]
        paths = []
        if self.min_clients is not None:
            rules.min_clients = self.min_clients
            paths.append("start_rules.min_clients")
        for text, name in ((self.start_delay, "start_delay"), (self.quiet_time, "quiet_time")):
            if text is not None:
                if length := parse_duration(text, field=name):
                    getattr(rules, name).FromTimedelta(length)
                paths.append(f"start_rules.{name}")
        if self.start_at is not None:
            if self.start_at.lower() != NONE:
                rules.start_time.FromDatetime(clock.future("--start-at", self.start_at))
            paths.append("start_rules.start_time")
        if self.manual is not None:
            rules.manual = self.manual
            paths.append("start_rules.manual")
        if self.match is not None:
            rules.match = self.match.message
            paths.append("start_rules.match")
        return paths


def recurrence_zone(repeat: str, zone: str) -> str:
    """Returns the name of the zone on whose clock something repeats; empty if it does not.

    Raises:
        InvalidArgumentError: there is a zone and no rule, or the local zone has no name.
    """
    if zone and not repeat:
        raise InvalidArgumentError(f"--repeat-zone {zone} without a rule: give --repeat as well", field="repeat_zone")
    name = zone or (local_zone().key if repeat else "") or ""
    if repeat and not name:
        raise InvalidArgumentError("the local time zone has no name: give --repeat-zone", field="repeat_zone")
    return name
