"""The step that makes images."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from fleetcast_sequence.steps.content import CaptureImage

from fleetcast_agent.sequence import filesystems, spool, tables, volumes
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.volumes import Volume

_CAPTURE_SHARE = 0.6
"""Part of the step's progress that making the image is; the rest is publishing it."""
_COPY_BYTES = 1 << 20


async def capture_image(arguments: CaptureImage, context: StepContext) -> None:
    """Makes the image and publishes it."""
    async with spool.opened(context, arguments.spool) as directory:
        target = directory / f"capture.{arguments.format}"
        await asyncio.to_thread(target.unlink, missing_ok=True)
        if arguments.disk is not None:
            await _raw_disk(context, arguments.disk, target)
        else:
            volume = await volumes.find(context, str(arguments.volume))
            if arguments.format == "raw":
                await asyncio.to_thread(_blank, target, volume.size_bytes)
                await _raw_volume(context, volume, target)
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
        await asyncio.to_thread(target.unlink, missing_ok=True)


async def _wim(context: StepContext, volume: Volume, target: Path, arguments: CaptureImage) -> None:
    configuration = context.step_directory / "wim.ini"
    configuration.write_text("\n".join(["[ExclusionList]", *arguments.exclude]) + "\n")
    command: list[str | Path] = ["wimlib-imagex", "capture"]
    options: list[str | Path] = [target, arguments.image, "--compress=XPRESS", f"--config={configuration}"]
    async with volumes.attached(context, volume, read_only=True) as device:
        kind = (await filesystems.probe(context.tools, device)).get("TYPE", "")
        if kind == "ntfs":
            await context.tools.run([*command, device, *options])
    if kind != "ntfs":
        async with volumes.mounted(context, volume, read_only=True) as root:
            await context.tools.run([*command, root, *options, "--unix-data"])
    await context.tools.run(["wimlib-imagex", "verify", target])


async def _raw_disk(context: StepContext, selector: str, target: Path) -> None:
    disk = context.disks.find(selector)
    await asyncio.to_thread(_blank, target, disk.size_bytes)
    partitions = await tables.read(context.tools, disk)
    begin = 0
    for number, partition in enumerate(partitions):
        context.progress(_CAPTURE_SHARE * number / len(partitions))
        await asyncio.to_thread(_copy, disk.path, target, begin, partition.start_bytes)
        volume = Volume(str(partition.number), disk.path, partition.start_bytes, partition.size_bytes)
        await _raw_volume(context, volume, target, offset_bytes=partition.start_bytes)
        begin = partition.start_bytes + partition.size_bytes
    await asyncio.to_thread(_copy, disk.path, target, begin, disk.size_bytes)


async def _raw_volume(context: StepContext, volume: Volume, target: Path, *, offset_bytes: int = 0) -> None:
    """Copies the used blocks of the volume to `offset_bytes` in `target`, which reads as zeros there."""
    place = Volume("copy", target, offset_bytes, volume.size_bytes)
    async with volumes.attached(context, volume, read_only=True) as device:
        kind = (await filesystems.probe(context.tools, device)).get("TYPE", "")
        if kind in ("ntfs", "ext2", "ext3", "ext4"):
            async with volumes.attached(context, place) as copy:
                if kind == "ntfs":
                    await context.tools.run(["ntfsclone", "--overwrite", copy, device])
                else:
                    await context.tools.run(["e2image", "-r", "-a", "-p", device, copy])
            return
    await context.control.go()
    await asyncio.to_thread(
        _copy, volume.backing, target, volume.start_bytes, volume.start_bytes + volume.size_bytes, offset_bytes
    )


def _blank(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def _copy(source: Path, target: Path, begin: int, end: int, at: int | None = None) -> None:
    """Copies the bytes from `begin` to `end` to the same place, or to `at`, leaving out what is zero."""
    shift = 0 if at is None else at - begin
    with source.open("rb") as reader, target.open("r+b") as writer:
        reader.seek(begin)
        position = begin
        while position < end:
            content = reader.read(min(_COPY_BYTES, end - position))
            if not content:
                raise StepError(f"{source} ends at {position}, before {end}")
            if content.count(0) != len(content):
                os.pwrite(writer.fileno(), content, position + shift)
            position += len(content)
