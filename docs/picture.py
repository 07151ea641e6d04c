"""Draws the picture of docs/architecture.md from the imports: `python docs/picture.py`, or `--check` to compare it."""

import sys
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- picture: begin -->\n", "<!-- picture: end -->"
DISTRIBUTIONS = ("server", "cli", "agent", "boot", "scheduler", "catalog", "sender", "sequence", "kit", "wire")
"""From those that use to those that are used."""


def picture() -> str:
    """Returns the picture as a Mermaid flowchart: distributions, their folders, and who imports whom.

    An arrow that follows from two others is left out.
    """
    graph = grimp.build_graph(*(f"fleetcast_{name}" for name in DISTRIBUTIONS), include_external_packages=False)
    lines = ["flowchart TD"]
    for name in DISTRIBUTIONS:
        folders = sorted(child for child in graph.find_children(f"fleetcast_{name}") if graph.find_children(child))
        folders = [folder for folder in folders if not folder.endswith(".migrations")]
        lines.append(f"  subgraph {name}")
        if not folders:
            lines.append(f'    {name}_all["modules"]')
        lines += [f'    {_node(folder)}["{folder.rpartition(".")[2]}"]' for folder in folders]
        lines += [f"    {_node(a)} --> {_node(b)}" for a, b in _arrows(graph, folders)]
        lines.append("  end")
    whole = [f"fleetcast_{name}" for name in DISTRIBUTIONS]
    lines += [f"  {a.removeprefix('fleetcast_')} --> {b.removeprefix('fleetcast_')}" for a, b in _arrows(graph, whole)]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def _arrows(graph: grimp.ImportGraph, places: list[str]) -> list[tuple[str, str]]:
    """Returns who imports whom of the places, without what follows from two others."""
    inside = {place: {place} | graph.find_descendants(place) for place in places}
    home = {module: place for place in places for module in inside[place]}
    uses: dict[str, set[str]] = {place: set() for place in places}
    for module, place in home.items():
        for imported in graph.find_modules_directly_imported_by(module):
            if home.get(imported, place) != place:
                uses[place].add(home[imported])

    def reached(place: str) -> set[str]:
        return uses[place].union(*(reached(other) for other in uses[place])) if uses[place] else set()

    return [
        (place, other)
        for place in places
        for other in sorted(uses[place])
        if not any(other in reached(between) for between in uses[place] - {other})
    ]


def _node(module: str) -> str:
    return module.removeprefix("fleetcast_").replace(".", "_")


def main() -> int:
    """Writes the picture, or says that it is old. Returns the exit code."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = before + BEGIN + picture() + END + after
    if "--check" in sys.argv[1:]:
        if drawn != text:
            print(f"{PAGE}: the picture is not what the imports are: run `make picture`.", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
