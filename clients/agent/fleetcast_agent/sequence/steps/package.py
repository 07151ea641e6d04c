"""The step that fetches packages; what fetches one for other steps."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.content import DownloadPackage

from fleetcast_agent.sequence.content import unpacking
from fleetcast_agent.sequence.content.content import Delivery, delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.slices import in_slices


async def download_package(arguments: DownloadPackage, context: StepContext) -> None:
    """Fetches and unpacks the package, and says where it is."""
    path = await fetch(context, arguments.package, delivery=arguments.delivery, unpack=arguments.unpack)
    context.results.variables[arguments.path_variable] = str(path)


async def fetch(
    context: StepContext, package: str, *, delivery: Delivery, unpack: bool = True, cabinets: bool = False
) -> Path:
    """Returns the directory or file where the package is from now to the end of the run.

    With `cabinets`, a cabinet of Windows is unpacked like a tar or ZIP archive; others want it as the file it is.

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
    target = directory / name
    if unpack:
        try:
            kind = await asyncio.to_thread(unpacking.kind_of, partial)
            unpacked = context.step_directory / "unpacked"
            delete_content(unpacked)
            if cabinets and kind == unpacking.CABINET:
                await _uncabineted(context, partial, unpacked)
            elif unpacking.is_archive(kind):
                await in_slices(context.control, unpacking.unpacked(partial, unpacked))
        except StepError as error:
            raise StepError(f"the package {name} cannot be unpacked: {error.message}") from error
        if unpacked.exists():
            delete_content(partial)
            partial, target = unpacked, directory / "content"
    await asyncio.to_thread(partial.rename, target)
    return target


async def _uncabineted(context: StepContext, archive: Path, target: Path) -> None:
    await asyncio.to_thread(target.mkdir)
    status = await asyncio.to_thread(os.statvfs, target)
    listed = await context.tools.run(["cabextract", "--list", archive], quiet=True)
    sizes = [int(line.split("|")[0]) for line in listed.output.splitlines() if line.split("|")[0].strip().isdecimal()]
    if sum(sizes) > status.f_bavail * status.f_frsize:
        raise StepError(f"there is no room for the {format_size(sum(sizes))} in it")
    await context.tools.run(["cabextract", "--quiet", "--directory", target, archive])
