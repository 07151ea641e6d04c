"""The step that puts files into a system that does not run."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath

from fleetcast_sequence.expression import text_of
from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.content import CopyFiles

from fleetcast_agent.sequence import names
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.disks.files import VolumeFiles
from fleetcast_agent.sequence.errors import StepError


async def copy_files(arguments: CopyFiles, context: StepContext) -> None:
    """Copies the files; those that are templates are rendered first."""
    mode = int(arguments.mode, 8) if arguments.mode else None
    volume = await volumes.find(context, arguments.volume)
    kind = await files.kind_of(context, volume)
    async with files.opened(context, volume) as target:
        if arguments.content is not None:
            names.refuse_if_impossible({arguments.destination: len(arguments.content)}, kind)
            await target.write(arguments.destination, arguments.content.encode(), mode=mode)
            return
        source, template = Path(str(arguments.source)), arguments.template
        await copy_tree(context, source, target, arguments.destination, filesystem=kind, template=template, mode=mode)


async def copy_tree(
    context: StepContext,
    source: Path,
    target: VolumeFiles,
    destination: str,
    *,
    filesystem: str,
    template: bool = False,
    mode: int | None = None,
) -> int:
    """Copies the file `source` to `destination`, or what is in the directory `source` into it. Returns how many files.

    `filesystem` is that of the target, as blkid calls it.

    Raises:
        StepError: there is no such source, the target cannot hold it, or a template cannot be rendered.
    """
    entries = await asyncio.to_thread(_files, source)
    sizes = {_placed(destination, relative): path.stat().st_size for path, relative in entries}
    names.refuse_if_impossible(sizes, filesystem)
    if (lacking := await asyncio.to_thread(target.lacking_bytes, sizes)) > 0:
        total = format_size(sum(sizes.values()))
        raise StepError(f"the files have {total}, and the volume has {format_size(lacking)} too little room for them")
    for done, (path, relative) in enumerate(entries):
        context.progress(done / len(entries))
        await context.control.go()
        content = await asyncio.to_thread(path.read_bytes)
        if template:
            content = _rendered(context, path, content)
        await target.write(
            _placed(destination, relative), content, mode=mode if mode is not None else path.stat().st_mode & 0o777
        )
    return len(entries)


def _placed(destination: str, relative: str | None) -> str:
    return destination if relative is None else str(PurePosixPath(destination, relative))


def _files(source: Path) -> list[tuple[Path, str | None]]:
    """Returns each file with its path inside the directory `source`; None for `source` itself."""
    if source.is_dir():
        found = sorted(source.rglob("*"))
        paths = [path for path in found if path.is_file()]
        odd = (path for path in found if not path.is_file() and (path.is_symlink() or not path.is_dir()))
        if (path := next(odd, None)) is not None:
            what = "a link to a directory, or to nothing" if path.is_symlink() else "neither a file nor a directory"
            raise StepError(f"{path.relative_to(source)} in {source} is {what}, which is not copied: take it out")
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
