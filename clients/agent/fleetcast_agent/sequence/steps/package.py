"""The step that fetches packages; what fetches one for other steps."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fleetcast_sequence.steps.content import DownloadPackage

from fleetcast_agent.sequence.content.content import Delivery, delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.slices import in_slices

if not hasattr(tarfile, "data_filter"):  # as in Debian 12: it would unpack to anywhere
    from backports import tarfile  # type: ignore[no-redef]


async def download_package(arguments: DownloadPackage, context: StepContext) -> None:
    """Fetches and unpacks the package, and says where it is."""
    path = await fetch(context, arguments.package, delivery=arguments.delivery, unpack=arguments.unpack)
    context.results.variables[arguments.path_variable] = str(path)


async def fetch(context: StepContext, package: str, *, delivery: Delivery, unpack: bool = True) -> Path:
    """Returns the directory or file where the package is from now to the end of the run.

    Raises:
        StepError: it cannot be had, or is an archive that cannot be unpacked safely.
    """
    name = package.removeprefix("images/").partition("@")[0]
    directory = context.run_directory / "packages" / f"{name}-{hashlib.sha256(package.encode()).hexdigest()[:12]}"
    target = directory / ("content" if unpack else name)
    if target.exists():
        return target
    directory.mkdir(parents=True, exist_ok=True)
    partial = context.step_directory / "package"
    await context.content.fetch(package, partial, delivery=delivery, progress=context.progress)
    if unpack and await asyncio.to_thread(_is_archive, partial):
        unpacked = context.step_directory / "unpacked"
        delete_content(unpacked)
        try:
            await in_slices(context.control, _unpacked(partial, unpacked))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise StepError(f"the package {name} cannot be unpacked: {error}") from error
        delete_content(partial)
        partial = unpacked
    else:
        target = directory / name
    await asyncio.to_thread(partial.rename, target)
    return target


def _is_archive(path: Path) -> bool:
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)


def _unpacked(archive: Path, target: Path) -> Iterator[None]:
    target.mkdir()
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                tar.extract(member, target, filter="data")
                yield
        return
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            place = (target / entry.filename.replace("\\", "/")).resolve()
            if not place.is_relative_to(target.resolve()):
                raise zipfile.BadZipFile(f"{entry.filename!r} leaves its directory")
            zipped.extract(entry, target)
            yield
