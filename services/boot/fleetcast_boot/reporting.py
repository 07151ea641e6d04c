"""Tells the scheduler how far machines got: what changed, every two seconds; everything after it was away."""

from __future__ import annotations

import asyncio
import logging
import time

from fleetcast_kit.errors import FleetcastError

from fleetcast_boot.progress import BootProgress, MachineProgress
from fleetcast_boot.scheduler import Scheduler

_logger = logging.getLogger(__name__)

PERIOD_SECONDS = 2.0
MAX_AT_ONCE = 1_000


async def report_progress(progress: BootProgress, scheduler: Scheduler) -> None:
    """Reports until cancelled. What could not be told is told again."""
    told: dict[str, tuple[float, str]] = {}
    is_away = False
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        now = time.time()
        news = [machine for machine in progress if told.get(machine.asker.mac_address) != _state(machine, now)]
        try:
            for begin in range(0, len(news), MAX_AT_ONCE):
                await scheduler.report(news[begin : begin + MAX_AT_ONCE], now)
        except FleetcastError as error:
            if not is_away:
                _logger.warning("the scheduler is not told how far machines got: %s", error.message)
            is_away, told = True, {}
            continue
        is_away = False
        told |= {machine.asker.mac_address: _state(machine, now) for machine in news}


def _state(machine: MachineProgress, now: float) -> tuple[float, str]:
    return machine.heard_at, machine.likely_reason(now)
