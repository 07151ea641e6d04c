"""WIM and ESD files onto volumes, by wimlib: once the file is whole, or, if it is pipable, while it arrives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fleetcast_kit.errors import FleetcastError
from fleetcast_sequence.steps.content import ApplyDataImage, ApplyOperatingSystem

from fleetcast_agent.sequence.content import pipable
from fleetcast_agent.sequence.content.arriving import ArrivingFile
from fleetcast_agent.sequence.content.content import ImageDescription, Progress, delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, filesystems, spool, volumes
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError

FETCH_SHARE = 0.6
"""Part of the step's progress that fetching a WIM is; the rest is applying it."""
_EXTRACTED = re.compile(r"Extracting file data: .*\((\d+)%\)")


async def apply(
    arguments: ApplyOperatingSystem | ApplyDataImage, image: ImageDescription, volume: Volume, context: StepContext
) -> None:
    """Fetches a WIM and makes the volume anew from one of the images in it.

    The volume is erased once the file is whole. That of a pipable one, unless it is to be spooled, is erased as soon as
    its beginning says that it holds the image; what is proven of the file is then applied while the rest arrives.

    Raises:
        StepError: it could not be done.
    """
    selector = str(arguments.volume)
    if begun := (context.checkpoint or {}).get("filesystem"):  # half of one, perhaps
        await _make(context, selector, volume, begun, (context.checkpoint or {}).get("label", ""))
    kind = await files.kind_of(context, volume)
    if kind not in ("ntfs", "ext4", "xfs"):
        raise StepError(
            f"a WIM goes onto NTFS, ext4 or XFS: the volume {volume.name!r} holds {kind or 'no file system'}"
        )
    async with spool.opened(context, arguments.spool) as directory:
        # It stays whole until the step ends: after an interruption only what is missing is fetched.
        file = directory / "image.wim"
        arriving, progress = ArrivingFile(file, image.size_bytes), _Progress(context.progress)
        fetch = context.content.fetch(
            arguments.image, file, delivery=arguments.delivery, progress=progress.fetch, verified=arriving.note
        )
        fetching = asyncio.ensure_future(arriving.filled(fetch))
        try:
            extraction = _Extraction(context, selector, volume, kind, str(arguments.index), progress.apply)
            names = await pipable.image_names(arriving) if arguments.spool is None else None
            if names is None:
                await fetching
                await extraction.from_file(file)
            else:
                if not pipable.holds(names, str(arguments.index)):
                    raise StepError(f"{arguments.image} has no image {str(arguments.index)!r}: it has {_listed(names)}")
                if fetching.done():
                    fetching.result()  # a failure until here leaves the volume as it is
                await _overlapping(extraction.from_pipe(arriving), fetching, arguments.image, volume)
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        delete_content(file)


async def _overlapping(extract: Awaitable[None], fetching: asyncio.Future[None], image: str, volume: Volume) -> None:
    """Waits for both; when one fails, the other is of no use and ends too."""
    applying = asyncio.ensure_future(extract)
    try:
        await asyncio.wait({fetching, applying}, return_when=asyncio.FIRST_EXCEPTION)
        if fetching.done():
            try:
                fetching.result()
            except (FleetcastError, OSError) as error:
                raise StepError(
                    f"{image} could not be fetched to its end, and a part of it is on the volume {volume.name!r} "
                    f"already: {error.message if isinstance(error, FleetcastError) else error}"
                ) from error
        await applying
    finally:
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)


@dataclass(frozen=True)
class _Extraction:
    """One image of a WIM on its way onto a volume."""

    context: StepContext
    selector: str
    volume: Volume
    kind: str
    index: str
    progress: Progress

    async def from_file(self, file: Path) -> None:
        await self.context.tools.run(["wimlib-imagex", "info", file, self.index], quiet=True)
        await self._erase()
        await self._extract(file)

    async def from_pipe(self, file: ArrivingFile) -> None:
        self.context.log("the WIM is pipable: it is applied while it arrives")
        await self._erase()
        await self._extract("-", file.read)

    async def _erase(self) -> None:
        """Empties the volume: an attempt before this one may have written half of an image."""
        context, volume = self.context, self.volume
        await context.control.go()
        if volume.keep:
            await files.empty(context, volume)
            return
        label = (await volumes.about(context, volume)).get("LABEL", "")
        await _make(context, self.selector, volume, self.kind, label)

    async def _extract(self, source: Path | str, stdin: Callable[[], Awaitable[bytes]] | bytes = b"") -> None:
        command: list[str | Path] = ["wimlib-imagex", "apply", source, self.index]
        if self.kind == "ntfs":
            async with volumes.attached(self.context, self.volume) as device:
                # Given a path that does not exist, wimlib makes a directory of that name and succeeds.
                if not device.is_block_device():
                    raise StepError(f"{device} is no block device")
                await self.context.tools.run([*command, device], stdin=stdin, progress=self._note)
        else:
            async with volumes.mounted(self.context, self.volume) as root:
                await self.context.tools.run([*command, root, "--unix-data"], stdin=stdin, progress=self._note)

    def _note(self, line: str) -> None:
        if found := _EXTRACTED.search(line):
            self.progress(int(found[1]) / 100)


async def _make(context: StepContext, selector: str, volume: Volume, kind: str, label: str) -> None:
    """Makes the file system anew, also when the agent is killed on the way."""
    await volumes.hold(context, selector, volume, filesystem=kind, label=label)
    async with volumes.attached(context, volume) as device:
        await filesystems.make(context.tools, device, kind, label=label, start_bytes=volume.start_bytes)


class _Progress:
    """Puts fetching and applying together, one after the other or both at once."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._fetched = self._applied = 0.0

    def fetch(self, fraction: float) -> None:
        self._fetched = fraction
        self._say()

    def apply(self, fraction: float) -> None:
        self._applied = fraction
        self._say()

    def _say(self) -> None:
        self._report(FETCH_SHARE * self._fetched + (1 - FETCH_SHARE) * self._applied)


def _listed(names: list[str]) -> str:
    return ", ".join(f"{index} ({name})" if name else str(index) for index, name in enumerate(names, 1)) or "none"
