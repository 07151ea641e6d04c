"""`make bench`: fleetcast against udpcast and UFTP in the network lab, and its control plane on this machine."""

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.bench import control_plane
from tests.bench.cases import BARE, CASES, OURS
from tests.bench.peers import installed_peers
from tests.bench.plots import write_plots
from tests.bench.report import as_plain, as_text, targets_table, write_into
from tests.bench.run import Bench
from tests.support.lab import why_unavailable

_FOLDER = Path("build/bench")


def main() -> int:
    """Run what the arguments ask for; 0 if every run of fleetcast gave the right bytes."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 MiB, one run: shows that everything works")
    parser.add_argument("--size-mib", type=int, help="size of the file, 1024 by default")
    parser.add_argument("--runs", type=int, help="runs of each tool in each case, 5 by default")
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be given again")
    parser.add_argument("--tool", action="append", help="only this tool; may be given again")
    parser.add_argument(
        "--control-plane", action="store_true", help="only that; it is measured unless cases or tools are named"
    )
    parser.add_argument(
        "--json", type=Path, default=_FOLDER / "results.json", metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="measure the further points of the plots; draw them"
    )
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the tables into this document, too")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if arguments.control_plane:
        return _measure_control_plane(arguments.json, quick=arguments.quick)
    if reason := why_unavailable():
        print(reason, file=sys.stderr)
        return 1
    size_bytes = (arguments.size_mib or (64 if arguments.quick else 1024)) << 20
    run_count = arguments.runs or (1 if arguments.quick else 5)
    cases = [
        case
        for case in CASES
        if (case.name in arguments.case if arguments.case else arguments.plots or not case.only_for_plots)
    ]
    tools = arguments.tool or [OURS, BARE, *installed_peers()]
    bench = Bench(tools, size_bytes=size_bytes, run_count=run_count, log_folder=arguments.json.parent / "logs")
    outcome = bench.run(cases)
    text = as_text(outcome.results, outcome.failures, size_bytes)
    print(text)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(as_plain(outcome.results, outcome.failures, size_bytes), indent=1))
    print(f"\nEverything measured is in {arguments.json}.")
    if arguments.document:
        write_into(arguments.document, text)
    if arguments.plots:
        print("Plots:", *write_plots(outcome.results, arguments.plots))
    if not (arguments.case or arguments.tool):
        _measure_control_plane(arguments.json, quick=arguments.quick)
    return 1 if any(f": {OURS}: " in failure for failure in outcome.failures) else 0


def _measure_control_plane(results: Path, *, quick: bool) -> int:
    figures = control_plane.measure(200 if quick else 2000)
    print(f"\nControl plane\n\n{targets_table(control_plane.targets(figures))}")
    file = results.with_name("control-plane.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1))
    print(f"\nEverything measured is in {file}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
