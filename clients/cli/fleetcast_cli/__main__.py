"""The `fleetcast` command."""

from __future__ import annotations

import sys

from fleetcast_kit.process.commandline import run_command_line

from fleetcast_cli.app import app


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run_command_line(app, "fleetcast", sys.argv[1:]))


if __name__ == "__main__":
    main()
