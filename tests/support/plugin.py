"""A distribution of somebody else that adds a step type."""

from __future__ import annotations

from pathlib import Path


def plug_in(packages: Path, source: str, *, step: str) -> Path:
    """Writes the module `acme` with the step `step`, as if it were installed in `packages`, and returns that folder.

    The module holds the step type under the step's name in capitals, and the function under the name itself.
    """
    about = packages / "acme-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[fleetcast_sequence.step_types]\n{step} = acme:{step.upper()}\n"
        f"[fleetcast_agent.steps]\n{step} = acme:{step}\n"
    )
    (packages / "acme.py").write_text(source)
    return packages
