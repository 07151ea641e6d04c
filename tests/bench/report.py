"""Results as text and as JSON."""

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.cases import CASES, OURS, Results, Target, targets
from tests.bench.measurement import Measurement, Spread, spread


def machine() -> dict[str, str]:
    """Returns what the figures depend on, by name."""
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in cpu_lines if line.startswith("model name")), "unknown")
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "peers": ", ".join(_package(name) for name in ("udpcast", "uftp")),
        "date": datetime.now(UTC).date().isoformat(),
    }


def as_text(results: Results, failures: Sequence[str], size_bytes: int) -> str:
    """Returns the tables of all figures, of ratios and of targets."""
    facts = machine() | {
        "file": f"{size_bytes / 2**20:.0f} MiB, incompressible",
        "figures": "median (least - greatest)",
    }
    parts = [
        "\n".join(f"{name:10} {value}" for name, value in facts.items()),
        _table(
            [
                "case",
                "tool",
                "runs",
                "goodput Mbit/s",
                "whole s",
                "sender CPU s/GiB",
                "receiver CPU s/GiB",
                "start CPU s",
                "MB",
            ],
            _rows(results),
        ),
    ]
    if ratios := _ratios(results):
        parts.append(_table(["case", "fleetcast against", "ratio of medians", "least - greatest"], ratios))
    if reached := targets(results):
        parts.append(targets_table(reached))
    if failures:
        parts.append("FAILED\n" + "\n".join(failures))
    return "\n\n".join(parts)


def targets_table(reached: Sequence[Target]) -> str:
    """Returns targets with what was reached."""
    rows = [
        [
            target.title,
            f"{target.value:.2f} {target.unit}".strip(),
            f"{'<=' if target.at_most else '>='} {target.must:g}",
            f"{'<=' if target.at_most else '>='} {target.aim:g}",
            target.verdict,
        ]
        for target in reached
    ]
    return _table(["target", "value", "must", "aim", "reached"], rows)


def as_plain(results: Results, failures: Sequence[str], size_bytes: int) -> dict[str, Any]:
    """Returns everything measured, for JSON."""
    return {
        "machine": machine(),
        "size_bytes": size_bytes,
        "measurements": [
            {"case": case, **asdict(run), "goodput_bits_per_second": run.goodput_bits_per_second}
            for (case, _), runs in results.items()
            for run in runs
        ],
        "targets": [asdict(target) | {"verdict": target.verdict} for target in targets(results)],
        "failures": list(failures),
    }


RESULTS_MARK = "<!-- Below this line: written by make bench. -->\n"


def write_into(document: Path, text: str) -> None:
    """Replace everything in a document below `RESULTS_MARK` by the tables.

    Raises:
        ValueError: the document has no such line.
    """
    head, mark, _ = document.read_text().partition(RESULTS_MARK)
    if not mark:
        raise ValueError(f"{document} has no line {RESULTS_MARK!r}")
    facts, tables = text.split("\n\n", 1)
    document.write_text(f"{head}{mark}\n```\n{facts}\n```\n\n{tables}\n")


def _rows(results: Results) -> list[list[str]]:
    def cell(runs: Sequence[Measurement], figure: Callable[[Measurement], float], digits: int) -> str:
        return _spread_text(spread(runs, figure), digits)

    return [
        [
            case.title,
            tool,
            str(len(runs)),
            cell(runs, lambda run: run.goodput_bits_per_second / 1e6, 0),
            cell(runs, lambda run: run.wall_seconds, 1),
            cell(runs, lambda run: run.sender_cpu_seconds_per_gib, 1),
            cell(runs, lambda run: run.receiver_cpu_seconds_per_gib, 1),
            cell(runs, lambda run: run.extra["receiver_start_cpu_seconds"], 1) if tool == OURS else "-",
            f"{max(run.peak_memory_bytes for run in runs) / 1e6:.0f}",
        ]
        for case in CASES
        for tool in case.tools
        if (runs := results.get((case.name, tool)))
    ]


def _ratios(results: Results) -> list[list[str]]:
    rows = []
    for case in CASES:
        ours = results.get((case.name, OURS))
        for tool in case.tools:
            theirs = results.get((case.name, tool))
            if tool == OURS or not ours or not theirs:
                continue
            mine = spread(ours, lambda run: run.goodput_bits_per_second)
            other = spread(theirs, lambda run: run.goodput_bits_per_second)
            extremes = f"{mine.least / other.greatest:.2f} - {mine.greatest / other.least:.2f}"
            rows.append([case.title, tool, f"{mine.median / other.median:.2f}", extremes])
    return rows


def _spread_text(figures: Spread, digits: int) -> str:
    if figures.count == 1:
        return f"{figures.median:.{digits}f}"
    return f"{figures.median:.{digits}f} ({figures.least:.{digits}f} - {figures.greatest:.{digits}f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns are aligned."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    ruler = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (head, ruler, *rows)
    )


def _package(name: str) -> str:
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}", name]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"{name} of unknown version"
