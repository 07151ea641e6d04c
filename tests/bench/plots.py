"""Plots of goodput by number of receivers and by loss, for the documentation."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.cases import BARE, CASES, GIGABIT, OURS, PAYLOAD_SHARE, UDPCAST, UFTP, Case, Results
from tests.bench.measurement import spread

_COLOURS = {OURS: "#0b6e4f", UDPCAST: "#c8553d", UFTP: "#3d5a80", BARE: "#999999"}


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Write the plots for which there are measurements into a folder and return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    by_receivers = [case for case in CASES if case.rate_bits_per_second is None and case.loss is None]
    by_loss = [case for case in CASES if case.receiver_count == 3 and (case.loss is None or case.loss.bursts is None)]
    written = []
    figure, axes = _figure("receivers", "goodput to each, Gbit/s")
    _draw(axes, results, by_receivers, [case.receiver_count for case in by_receivers])
    axes.set_xticks([case.receiver_count for case in by_receivers])
    axes.set_yscale("log")
    written.append(_save(figure, axes, folder / "goodput-by-receivers.svg"))
    figure, axes = _figure("loss at each of three receivers, % (link of 1 Gbit/s)", "goodput, Gbit/s")
    _draw(axes, results, by_loss, [case.loss.fraction * 100 if case.loss else 0 for case in by_loss])
    axes.axhline(GIGABIT * PAYLOAD_SHARE / 1e9, color="#999999", linestyle="dotted", label="highest payload rate")
    axes.set_ylim(bottom=0)
    written.append(_save(figure, axes, folder / "goodput-by-loss.svg"))
    return written


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _draw(axes: Axes, results: Results, cases: Sequence[Case], positions: Sequence[float]) -> None:
    for tool, colour in _COLOURS.items():
        points = [
            (position, spread(runs, lambda run: run.goodput_bits_per_second / 1e9))
            for position, case in zip(positions, cases, strict=True)
            if (runs := results.get((case.name, tool)))
        ]
        if not points:
            continue
        medians = [figures.median for _, figures in points]
        below = [figures.median - figures.least for _, figures in points]
        above = [figures.greatest - figures.median for _, figures in points]
        label = "bare kernel path" if tool == BARE else tool
        axes.errorbar(
            [position for position, _ in points],
            medians,
            [below, above],
            color=colour,
            marker="o",
            capsize=3,
            label=label,
        )


def _save(figure: Figure, axes: Axes, path: Path) -> Path:
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    return path
