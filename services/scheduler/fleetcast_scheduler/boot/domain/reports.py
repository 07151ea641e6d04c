"""How far machines got that start from the network, as their boot services tell it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from fleetcast_scheduler.boot.domain.decision import Answer, Asker

MAX_REPORTS = 10_000
"""Of the machines that were heard last. A boot service tells again what it knows when the scheduler is new."""


@dataclass(frozen=True, slots=True)
class BootReport:
    """How far one machine got."""

    asker: Asker
    stage: str
    answer: Answer
    reason: str
    begin_time: float
    heard_time: float
    likely_reason: str
    boot_service: str


class BootReports:
    """The last report of each machine, by its MAC address."""

    def __init__(self, most: int = MAX_REPORTS) -> None:
        self._most = most
        self._reports: OrderedDict[str, BootReport] = OrderedDict()

    def put(self, report: BootReport) -> None:
        """Takes a report; an older one of another boot service does not replace it."""
        present = self._reports.get(report.asker.mac_address)
        if present is not None and present.heard_time > report.heard_time:
            return
        self._reports[report.asker.mac_address] = report
        self._reports.move_to_end(report.asker.mac_address)
        while len(self._reports) > self._most:
            self._reports.popitem(last=False)

    def newest(self, after: tuple[float, str] | None = None) -> list[BootReport]:
        """Returns reports, that of the machine that was heard last first; only those after a position if given."""

        def position(report: BootReport) -> tuple[float, str]:
            return report.heard_time, report.asker.mac_address

        found = sorted(self._reports.values(), key=position, reverse=True)
        return found if after is None else [report for report in found if position(report) < after]
