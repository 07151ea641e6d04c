"""The step that makes images."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from fleetcast_sequence.steps.content import CaptureImage

from fleetcast_agent.sequence import condition
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import carrying, files, filesystems, spool, volumes
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.saving import uncapturable
from fleetcast_agent.sequence.slices import in_slices

_CAPTURE_SHARE = 0.6
"""Part of the step's progress that making the image is; the rest is publishing it."""
_COPY_BYTES = 1 << 20
_PERCENT = re.compile(r"(\d+)(\.\d+)?(%| percent)")
"""How wimlib, ntfsclone and e2image say how far they are."""


async def capture_image(arguments: CaptureImage, context: StepContext) -> None:
    """Makes the image and publishes it."""
    async with spool.opened(context, arguments.spool) as directory, contextlib.AsyncExitStack() as stack:
        target = directory / f"capture.{arguments.format}"
        await asyncio.to_thread(target.unlink, missing_ok=True)
        stack.callback(target.unlink, missing_ok=True)
        for volume in await _sources(arguments, context):
            await condition.refuse_if_unsafe(context, volume)
        if arguments.disk is not None:
            await _raw_disk(context, arguments.disk, target)
        else:
            volume = await volumes.find(context, str(arguments.volume))
            if arguments.format == "raw":
                await asyncio.to_thread(_blank, target, volume.size_bytes)
                await _raw_volume(context, volume, target, (0, 1))
            else:
                await _wim(context, volume, target, arguments)
        context.progress(_CAPTURE_SHARE)
        await context.control.go()
        version = await context.content.publish(
            target,
            arguments.image,
            progress=lambda part: context.progress(_CAPTURE_SHARE + (1 - _CAPTURE_SHARE) * part),
        )
        context.log(f"published {version}")


async def _sources(arguments: CaptureImage, context: StepContext) -> list[Volume]:
    """Returns the volumes that are captured."""
    if arguments.disk is None:
        return [await volumes.find(context, str(arguments.volume))]
    disk = context.disks.find(arguments.disk)
    return [
        Volume(f"{partition.number} of {arguments.disk}", disk.path, partition.start_bytes, partition.size_bytes)
        for partition in await tables.read(context.tools, disk)
    ]


async def _wim(context: StepContext, volume: Volume, target: Path, arguments: CaptureImage) -> None:
    agents = [f"{directory}/*" for directory in (carrying.LINUX, carrying.WINDOWS)]  # each machine enrols by itself
    exclude = [f"/{spool.DIRECTORY}", *agents, *arguments.exclude]
    if await files.kind_of(context, volume) == "ntfs":
        exclude += await uncapturable.left_out(context.control, volume.backing, volume.start_bytes, exclude)
    configuration = context.step_directory / "wim.ini"
    configuration.write_text("\n".join(["[ExclusionList]", *exclude]) + "\n", encoding="utf-8")
    command: list[str | Path] = ["wimlib-imagex", "capture"]
    options: list[str | Path] = [target, arguments.image, "--compress=XPRESS", f"--config={configuration}"]
    async with volumes.attached(context, volume, read_only=True) as device:
        kind = (await filesystems.probe(context.tools, device)).get("TYPE", "")
        if kind == "ntfs":
            await context.tools.run([*command, device, *options], progress=_part(context, 0, 0.8))
    if kind != "ntfs":
        async with volumes.mounted(context, volume, read_only=True) as root:
            await context.tools.run([*command, root, *options, "--unix-data"], progress=_part(context, 0, 0.8))
    await context.tools.run(["wimlib-imagex", "verify", target], progress=_part(context, 0.8, 1))


def _part(context: StepContext, begin: float, end: float) -> Callable[[str], None]:
    """Returns what takes the lines of a program that makes the part of the image from `begin` to `end`."""
    scanning = False  # ntfsclone counts to 100 before it begins

    def note(line: str) -> None:
        nonlocal scanning
        scanning = (scanning or line.startswith("Scanning volume")) and not line.startswith("Cloning")
        if not scanning and (found := _PERCENT.search(line)):
            context.progress(_CAPTURE_SHARE * (begin + (end - begin) * int(found[1]) / 100))

    return note


async def _raw_disk(context: StepContext, selector: str, target: Path) -> None:
    disk = context.disks.find(selector)
    await asyncio.to_thread(_blank, target, disk.size_bytes)
    partitions = await tables.read(context.tools, disk)
    begin = 0
    for partition in partitions:
        await in_slices(context.control, _copied(disk.path, target, begin, partition.start_bytes, begin))
        volume = Volume(str(partition.number), disk.path, partition.start_bytes, partition.size_bytes)
        end = partition.start_bytes + partition.size_bytes
        part = (partition.start_bytes / disk.size_bytes, end / disk.size_bytes)
        await _raw_volume(context, volume, target, part, offset_bytes=partition.start_bytes)
        begin = end
    await in_slices(context.control, _copied(disk.path, target, begin, disk.size_bytes, begin))


async def _raw_volume(
    context: StepContext, volume: Volume, target: Path, part: tuple[float, float], *, offset_bytes: int = 0
) -> None:
    """Copies the used blocks of the volume, a part of the image, to `offset_bytes` in `target`, which is zero there."""
    place = Volume("copy", target, offset_bytes, volume.size_bytes)
    async with volumes.attached(context, volume, read_only=True) as device:
        kind = (await filesystems.probe(context.tools, device)).get("TYPE", "")
        if kind in ("ntfs", "ext2", "ext3", "ext4"):
            async with volumes.attached(context, place) as copy:
                command: list[str | Path] = ["ntfsclone", "--overwrite", copy, device]
                if kind != "ntfs":
                    command = ["e2image", "-r", "-a", "-p", device, copy]
                await context.tools.run(command, progress=_part(context, *part))
            return
    end = volume.start_bytes + volume.size_bytes
    await in_slices(context.control, _copied(volume.backing, target, volume.start_bytes, end, offset_bytes))


def _blank(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def _copied(source: Path, target: Path, begin: int, end: int, at: int) -> Iterator[None]:
    """Copies the bytes from `begin` to `end` to the place `at`, leaving out what is zero."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        reader.seek(begin)
        position = begin
        while position < end:
            content = reader.read(min(_COPY_BYTES, end - position))
            if not content:
                raise StepError(f"{source} ends at {position}, before {end}")
            if content.count(0) != len(content):
                os.pwrite(writer.fileno(), content, position - begin + at)
            position += len(content)
            yield
