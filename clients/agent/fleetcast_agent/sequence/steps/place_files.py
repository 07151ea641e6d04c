"""The step that puts files into a system that does not run."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath

from fleetcast_sequence.expression import text_of
from fleetcast_sequence.steps.content import CopyFiles

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.disks.files import VolumeFiles
from fleetcast_agent.sequence.errors import StepError


async def copy_files(arguments: CopyFiles, context: StepContext) -> None:
    """Copies the files; those that are templates are rendered first."""
    mode = int(arguments.mode, 8) if arguments.mode else None
    volume = await volumes.find(context, arguments.volume)
    async with files.opened(context, volume) as target:
        if arguments.content is not None:
            await target.write(arguments.destination, arguments.content.encode(), mode=mode)
            return
        await copy_tree(
            context, Path(str(arguments.source)), target, arguments.destination, template=arguments.template, mode=mode
        )


async def copy_tree(
    context: StepContext,
    source: Path,
    target: VolumeFiles,
    destination: str,
    *,
    template: bool = False,
    mode: int | None = None,
) -> int:
    """Copies the file `source` to `destination`, or what is in the directory `source` into it. Returns how many files.

    Raises:
        StepError: there is no such source, or a template cannot be rendered.
    """
    entries = await asyncio.to_thread(_files, source)
    for done, (path, relative) in enumerate(entries):
        context.progress(done / len(entries))
        await context.control.go()
        content = await asyncio.to_thread(path.read_bytes)
        if template:
            content = _rendered(context, path, content)
        name = destination if relative is None else str(PurePosixPath(destination, relative))
        await target.write(name, content, mode=mode if mode is not None else path.stat().st_mode & 0o777)
    return len(entries)


def _files(source: Path) -> list[tuple[Path, str | None]]:
    """Returns each file with its path inside the directory `source`; None for `source` itself."""
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        return [(path, path.relative_to(source).as_posix()) for path in paths]
    if source.is_file():
        return [(source, None)]
    raise StepError(f"there is nothing at {source} to copy")


def _rendered(context: StepContext, path: Path, content: bytes) -> bytes:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise StepError(f"{path.name} is no UTF-8 text, so it cannot be a template") from error
    return text_of(context.variables.render(text)).encode()
