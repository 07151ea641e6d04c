"""The control plane under thousands of agents, and with hundreds of sessions; see `agents` and `decisions`."""

import json
import subprocess
import sys
from typing import Any

from tests.bench.cases import Target


def measure(agent_count: int) -> dict[str, Any]:
    """Returns the figures of both, each measured by a process of its own."""
    return _figures("agents", "--agents", str(agent_count)) | _figures("decisions")


def targets(figures: dict[str, Any]) -> list[Target]:
    """Returns what must be reached; the aim is to reach it with more agents."""
    agents, burst = f"{figures['agent_count']} agents", f"{figures['burst_join_count']} joins within one second"

    def at_most(title: str, unit: str, must: float, value: float) -> Target:
        return Target(title, unit, must, must, value, at_most=True)

    return [
        at_most(f"{agents}: registered within", "s", 60, figures["registration_seconds"]),
        at_most(f"{burst}: admitted within", "s", 3, figures["burst_admission_seconds"]),
        at_most(f"{agents} that report: server", "cores", 1, figures["server_cores"]),
        at_most(f"{agents} that report: server's peak memory", "MB", 1000, figures["server_peak_memory_bytes"] / 1e6),
        at_most(f"{agents} that report: seen in a watch, 99 %", "s", 1, figures["visible_p99_seconds"]),
        *(
            at_most(f"{figures['session_count']} sessions: {decision}, median", "ms", 50, figures[name])
            for decision, name in (
                ("start", "start_median_milliseconds"),
                ("assignment", "assignment_median_milliseconds"),
                (f"move of {figures['moves']}", "move_milliseconds"),
            )
        ),
    ]


def _figures(module: str, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.bench.{module}", *flags]
    figures: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return figures
