"""The agent of a boot image: what is installed here, with all that it needs, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError
from packaging.requirements import Requirement

AGENT = "fleetcast-agent"
_OWN_PACKAGES = {"fleetcast-stubs": "fleetcast"}
"""The import package of a distribution of ours that is not named like it."""


def version() -> str:
    """Returns the version of the agent that is installed here.

    Raises:
        FailedPreconditionError: there is none.
    """
    try:
        return metadata.version(AGENT)
    except metadata.PackageNotFoundError as error:
        raise FailedPreconditionError(
            f"{AGENT} is not installed beside the boot service, and a boot image carries it: install it there"
        ) from error


def copy_agent(folder: Path) -> list[str]:
    """Copies the agent's distributions into `folder`. Returns their names with versions, sorted."""
    folder.mkdir(parents=True)
    copied = []
    for distribution in _closure(AGENT):
        name = distribution.name
        if name.startswith("fleetcast-"):
            _copy_own(name, folder)
            _copy_metadata(distribution, folder)
        else:
            _copy_files(distribution, folder)
        copied.append(f"{name}=={distribution.version}")
    return sorted(copied)


def _closure(name: str) -> Iterator[metadata.Distribution]:
    """Yields a distribution and all that it needs on this machine."""
    pending, seen = [Requirement(name)], set[tuple[str, str]]()
    given: set[str] = set()
    while pending:
        wanted = pending.pop()
        distribution = metadata.distribution(wanted.name)
        canonical = distribution.name.lower().replace("_", "-")
        for extra in wanted.extras or {""}:
            if (canonical, extra) in seen:
                continue
            seen.add((canonical, extra))
            for text in distribution.requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    pending.append(needed)
            if wanted.extras:
                pending.append(Requirement(wanted.name))
        if canonical not in given:
            given.add(canonical)
            yield distribution


def _copy_own(name: str, folder: Path) -> None:
    """Copies one of our packages from where it is imported from: in a checkout that is the source tree."""
    package = _OWN_PACKAGES.get(name, name.replace("-", "_"))
    spec = util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise FailedPreconditionError(f"the package {package} of {name} is not where Python finds packages")
    for place in places:
        shutil.copytree(
            place, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.h"), dirs_exist_ok=True
        )


def _copy_metadata(distribution: metadata.Distribution, folder: Path) -> None:
    """Copies what says which version it is, and which steps it has."""
    target = folder / f"{distribution.name.replace('-', '_')}-{distribution.version}.dist-info"
    target.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        if (text := distribution.read_text(name)) is not None:
            (target / name).write_text(text)


def _copy_files(distribution: metadata.Distribution, folder: Path) -> None:
    for file in distribution.files or ():
        if file.parts[0] == ".." or "__pycache__" in file.parts:
            continue
        source, target = Path(str(distribution.locate_file(file))), folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copy2(source, target)
