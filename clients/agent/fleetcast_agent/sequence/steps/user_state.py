"""Steps that save users' files before a machine is erased, and put them back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.content import CaptureUserState, RestoreUserState

from fleetcast_agent.sequence import condition
from fleetcast_agent.sequence.content.content import delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import archives, files, volumes
from fleetcast_agent.sequence.disks.files import inside
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import NtfsError
from fleetcast_agent.sequence.saving import linux_facts, members, ntfs_facts, store
from fleetcast_agent.sequence.saving.chosen import MountedTree, chosen
from fleetcast_agent.sequence.saving.ntfs_facts import Collected
from fleetcast_agent.sequence.slices import in_slices

_FORMAT = ("--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")
_EXTRACT = ("--numeric-owner", "--same-owner", "--same-permissions", "--xattrs", "--xattrs-include=*", "--acls")
_SHOWN = 5
"""How many files an error names."""


async def capture_user_state(arguments: CaptureUserState, context: StepContext) -> None:
    """Saves the files, then compares the copy with the originals before it calls itself done."""
    volume = await volumes.find(context, arguments.volume)
    await condition.refuse_if_unsafe(context, volume)
    kind = await files.kind_of(context, volume)
    read_only = arguments.store is None
    async with volumes.mounted(context, volume, read_only=read_only) as root:
        place = context.step_directory
        if arguments.store is not None:
            place = inside(root, arguments.store)
            store.refuse_if_wanted(place, arguments.store.strip("/"))
        found = await _collected(arguments, context, volume, root, kind=kind)
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f"{store.ARCHIVE}.partial"
        with contextlib.ExitStack() as at_end:
            at_end.callback(store.take_back, place, partial)
            await _save(arguments, context, root, found=found, partial=partial, volume=volume, kind=kind)
        if arguments.store is not None:
            volumes.keep(context, arguments.volume, volume, [*volume.keep, arguments.store])
    if found.online_only:
        context.remark(
            f"of {found.online_only} of the saved files the content is only with the cloud service (OneDrive or the "
            f"like), not on this disk: what was saved of them is their place"
        )


async def _collected(
    arguments: CaptureUserState, context: StepContext, volume: Volume, root: Path, *, kind: str
) -> Collected:
    """Finds out what is there, by the file system's own records where a mount hides some of it.

    Raises:
        StepError: nothing is, or something that cannot be saved.
    """
    found = Collected()
    try:
        if kind == "ntfs":
            with volume.backing.open("rb") as disk:
                records = NtfsVolume(disk, volume.start_bytes)
                await in_slices(context.control, ntfs_facts.collect(records, arguments, found))
        else:
            await in_slices(context.control, _walked(root, arguments, found.visible))
    except NtfsError as error:
        raise StepError(f"the volume {volume.name!r} cannot be read: {error}; let Windows check it") from error
    except OSError as error:
        path = str(error.filename or root).removeprefix(str(root)) or "/"
        raise StepError(f"{path} cannot be read: {error.strerror}; nothing was saved") from error
    if found.encrypted:
        raise StepError(
            f"Windows has encrypted {_count(found.encrypted)} with {format_size(sum(found.encrypted.values()))} (EFS), "
            f"which nobody but their user can read: decrypt them in Windows as that user, or leave them out with "
            f"`exclude`: {_listed(found.encrypted)}"
        )
    if found.elsewhere:
        why = ", ".join(sorted(set(found.elsewhere.values())))
        raise StepError(
            f"the content of {_count(found.elsewhere)} is in another place of the volume ({why}), which a copy would "
            f"not hold: turn that off in Windows, or leave them out with `exclude`: {_listed(found.elsewhere)}"
        )
    if not (found.visible or found.behind or found.facts):
        raise StepError(f"nothing on the volume matches {', '.join(arguments.paths)}")
    reserved = (ntfs_facts.MEMBER, ntfs_facts.STREAMS, linux_facts.MEMBER)
    if taken := next((name for name in found.visible if name.split("/")[0] in reserved), None):
        raise StepError(f"/{taken} has a name that a saved state uses itself: rename it")
    return found


async def _save(
    arguments: CaptureUserState,
    context: StepContext,
    root: Path,
    *,
    found: Collected,
    partial: Path,
    volume: Volume,
    kind: str,
) -> None:
    """Makes the copy, proves it, and puts it where it is to be."""
    names = found.visible
    listed = "\0".join(names).encode(errors="surrogateescape")
    names_from = ("--no-recursion", "--null", "--verbatim-files-from", "--files-from=-")
    sizes: dict[tuple[int, int], int] = {}
    await in_slices(context.control, _measured(root, names, sizes))
    size_bytes = sum(sizes.values()) + found.stored_bytes
    status = await asyncio.to_thread(os.statvfs, partial.parent)
    if size_bytes > (free := status.f_bavail * status.f_frsize):
        raise StepError(f"the copy needs {format_size(size_bytes)}, and there is room for {format_size(free)}")
    async with archives.growing(partial, size_bytes or 1, lambda part: context.progress(0.4 * part)):
        create: list[str | Path] = ["tar", "--create", *_FORMAT, "--file", partial, "--directory", root, *names_from]
        await context.tools.run(create, stdin=listed)
    await archives.feed(context, partial, ["tar", "--compare", "--directory", root, "--numeric-owner"], (0.4, 0.6))
    facts: dict[str, Any] = found.facts
    if kind != "ntfs":
        await in_slices(context.control, linux_facts.collect(root, names, facts))
    member = ntfs_facts.MEMBER if kind == "ntfs" else linux_facts.MEMBER
    (context.step_directory / member).write_text(json.dumps(facts))
    add: list[str | Path] = ["--directory", context.step_directory, member]
    await context.tools.run(["tar", "--append", "--format=posix", "--file", partial, *add])
    if found.behind:
        with volume.backing.open("rb") as disk:
            records = NtfsVolume(disk, volume.start_bytes)
            await in_slices(context.control, members.append(partial, records, found.behind))
    digest = await store.digest_of(context.control, partial)
    context.progress(0.8)
    count = len({*names, *found.facts})
    if arguments.image is not None:
        version = await context.content.publish(
            partial, arguments.image, progress=lambda part: context.progress(0.8 + 0.2 * part)
        )
        context.log(f"saved {count} files and directories as {version}")
        return
    await asyncio.to_thread(store.commit, partial, digest)
    context.log(f"saved {count} files and directories in {arguments.store} ({digest})")


async def restore_user_state(arguments: RestoreUserState, context: StepContext) -> None:
    """Puts the files back, then compares them with the copy."""
    volume = await volumes.find(context, arguments.volume)
    kind = await files.kind_of(context, volume)
    fetched = context.step_directory / store.ARCHIVE
    if arguments.image is not None:
        await context.content.fetch(
            arguments.image, fetched, delivery="unicast", progress=lambda part: context.progress(0.3 * part)
        )
    if not (context.checkpoint or {}).get("restored"):  # the copy may be gone by now
        await _put_back(arguments, context, volume, kind)
        await context.save({"restored": True})
    async with volumes.mounted(context, volume) as root:
        if arguments.store is None:
            return
        place = inside(root, arguments.store)
        store.is_back(place)
        if arguments.delete_store:
            await asyncio.to_thread(delete_content, place)
            gone = arguments.store.strip("/").split("/")[0]
            volumes.keep(context, arguments.volume, volume, [name for name in volume.keep if name != gone])


async def _put_back(arguments: RestoreUserState, context: StepContext, volume: Volume, kind: str) -> None:
    def archive_below(root: Path) -> Path:
        return (
            inside(root, arguments.store) if arguments.store is not None else context.step_directory
        ) / store.ARCHIVE

    async with volumes.mounted(context, volume) as root:
        archive = archive_below(root)
        if arguments.store is not None:
            await store.verify(context.control, archive.parent, arguments.store.strip("/"))
        context.progress(0.3)
        noted = await _noted(context, archive, ntfs_facts.MEMBER if kind == "ntfs" else linux_facts.MEMBER)
        links = [name for name, values in noted.items() if kind == "ntfs" and ntfs_facts.is_link(values)]
        left_out = context.step_directory / "left-out"
        lines = (ntfs_facts.MEMBER, ntfs_facts.STREAMS, linux_facts.MEMBER, *links)
        left_out.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in lines))
        skip = ["--anchored", "--no-wildcards", f"--exclude-from={left_out}"]
        (linux_facts.release if kind != "ntfs" else ntfs_facts.uncover)(root, noted)
        await archives.feed(context, archive, ["tar", "--extract", *skip, *_EXTRACT, "--directory", root], (0.3, 0.6))
    if any(values.get(ntfs_facts.APART) for values in noted.values()):
        # Only so can streams be written that are longer than an extended attribute may be.
        async with volumes.mounted(context, volume, streams="windows") as root:
            extract: list[str | Path] = ["tar", "--extract", "--strip-components=1", "--overwrite", "--directory", root]
            extract += ["--touch", "--no-same-owner", "--same-permissions", ntfs_facts.STREAMS]
            await archives.feed(context, archive_below(root), extract, (0.6, 0.7))
    async with volumes.mounted(context, volume) as root:
        archive = archive_below(root)
        failed: list[str] = []
        if kind == "ntfs":
            await in_slices(context.control, ntfs_facts.make_links(root, noted))
            await in_slices(context.control, ntfs_facts.write(root, noted, failed))
        compare: list[str | Path] = ["tar", "--compare", *skip, "--directory", root, "--numeric-owner"]
        await archives.feed(context, archive, compare, (0.7, 1))
        if kind == "ntfs":
            await in_slices(context.control, ntfs_facts.cover(root, noted))
        else:
            await in_slices(context.control, linux_facts.compare(root, noted))
            await in_slices(context.control, linux_facts.write(root, noted))
    if kind == "ntfs":
        with volume.backing.open("rb") as disk:
            records = NtfsVolume(disk, volume.start_bytes)
            await in_slices(context.control, ntfs_facts.compare(records, noted, failed))
    for sentence in failed:
        context.remark(sentence)


async def _noted(context: StepContext, archive: Path, member: str) -> dict[str, dict[str, Any]]:
    """Returns what an archive says of its files beside their content."""
    look: list[str | Path] = ["tar", "--list", "--file", archive, member]
    listed = await context.tools.run(look, success_codes=(0, 2), quiet=True, judged=False)
    if "does not look like a tar archive" in listed.error_output:
        raise StepError("this is no saved state: capture-user-state makes tar archives, and it is none")
    if listed.exit_code:
        return {}  # saved from another kind of file system
    await context.tools.run(["tar", "--extract", "--directory", context.step_directory, "--file", archive, member])
    noted: dict[str, dict[str, Any]] = json.loads((context.step_directory / member).read_bytes())
    return noted


def _walked(root: Path, arguments: CaptureUserState, names: list[str]) -> Iterator[None]:
    for item in chosen(MountedTree(root), arguments):
        names.append(item.path)
        yield


def _measured(root: Path, names: list[str], sizes: dict[tuple[int, int], int]) -> Iterator[None]:
    """Notes what each file will take at least in a tar, once if it has several names."""
    for name in names:
        about = (root / name).lstat()
        sizes[about.st_dev, about.st_ino] = min(about.st_size, about.st_blocks * 512) + 512
        yield


def _count(paths: dict[str, Any]) -> str:
    return f"{len(paths)} file{'s' * (len(paths) != 1)}"


def _listed(paths: dict[str, Any]) -> str:
    shown = [f"/{path}" + (f" ({format_size(size)})" if isinstance(size, int) else "") for path, size in paths.items()]
    more = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
