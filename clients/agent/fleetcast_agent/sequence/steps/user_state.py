"""Steps that save users' files before a machine is erased, and put them back."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from fleetcast_sequence.quantities import format_size
from fleetcast_sequence.steps.content import CaptureUserState, RestoreUserState

from fleetcast_agent.sequence import archives
from fleetcast_agent.sequence.content.content import delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.disks.files import inside
from fleetcast_agent.sequence.disks.volumes import Volume
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.slices import in_slices

ARCHIVE = "state.tar"
DIGEST = "state.sha256"
ATTRIBUTES = "fleetcast-ntfs-attributes.json"
"""Member of the archive: what NTFS knows of a file and tar does not."""
_NTFS_ATTRIBUTES = ("system.ntfs_acl", "system.ntfs_attrib", "system.ntfs_times")
"""ntfs-3g shows them as extended attributes: security descriptor, attributes, times of creation and so on."""
_REPARSE = "system.ntfs_reparse_data"
"""What makes a link of Windows out of a file or directory. Every profile has some; to tar they look like our own."""
_DIRECTORY_ATTRIBUTE = 0x10
_JUNCTION = b"\x03\x00\x00\xa0"
"""How the reparse data of a junction begins, which is always a directory."""
_BLOCK_BYTES = 1 << 20
_FORMAT = ("--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")
_EXTRACT = ("--numeric-owner", "--same-owner", "--same-permissions", "--xattrs", "--xattrs-include=*", "--acls")


async def capture_user_state(arguments: CaptureUserState, context: StepContext) -> None:
    """Saves the files, then compares the copy with the originals before it calls itself done."""
    volume = await volumes.find(context, arguments.volume)
    kind = await files.kind_of(context, volume)
    read_only = arguments.store is None
    async with volumes.mounted(context, volume, read_only=read_only) as root:
        names: list[str] = []
        chosen = _chosen(root, arguments.paths, arguments.exclude, arguments.store)
        await in_slices(context.control, map(names.append, chosen))
        if not names:
            raise StepError(f"nothing on the volume matches {', '.join(arguments.paths)}")
        store = inside(root, arguments.store) if arguments.store is not None else context.step_directory
        store.mkdir(parents=True, exist_ok=True)
        partial = store / f"{ARCHIVE}.partial"
        with contextlib.ExitStack() as at_end:
            at_end.callback(_take_back, store, partial)
            await _save(arguments, context, root, names=names, partial=partial, kind=kind)
        if arguments.store is not None:
            volumes.keep(context, arguments.volume, volume, [*volume.keep, arguments.store])


async def _save(
    arguments: CaptureUserState, context: StepContext, root: Path, *, names: list[str], partial: Path, kind: str
) -> None:
    """Makes the copy, proves it, and puts it where it is to be."""
    listed = "\0".join(names).encode(errors="surrogateescape")
    names_from = ("--no-recursion", "--null", "--verbatim-files-from", "--files-from=-")
    sizes: dict[tuple[int, int], int] = {}
    await in_slices(context.control, _measured(root, names, sizes))
    size_bytes = sum(sizes.values())
    status = await asyncio.to_thread(os.statvfs, partial.parent)
    if size_bytes > (free := status.f_bavail * status.f_frsize):
        raise StepError(f"the copy needs {format_size(size_bytes)}, and there is room for {format_size(free)}")
    async with archives.growing(partial, size_bytes, lambda part: context.progress(0.4 * part)):
        create: list[str | Path] = ["tar", "--create", *_FORMAT, "--file", partial, "--directory", root, *names_from]
        await context.tools.run(create, stdin=listed)
    await archives.feed(context, partial, ["tar", "--compare", "--directory", root, "--numeric-owner"], (0.4, 0.6))
    if kind == "ntfs":
        noted: dict[str, dict[str, str]] = {}
        await in_slices(context.control, _attributes_read(root, names, noted))
        (context.step_directory / ATTRIBUTES).write_text(json.dumps(noted))
        member: list[str | Path] = ["--directory", context.step_directory, ATTRIBUTES]
        await context.tools.run(["tar", "--append", "--format=posix", "--file", partial, *member])
    digest = await _digest(context, partial)
    context.progress(0.8)
    if arguments.image is not None:
        version = await context.content.publish(
            partial, arguments.image, progress=lambda part: context.progress(0.8 + 0.2 * part)
        )
        context.log(f"saved {len(names)} files and directories as {version}")
        return
    await asyncio.to_thread(_commit, partial, digest)
    context.log(f"saved {len(names)} files and directories in {arguments.store} ({digest})")


async def restore_user_state(arguments: RestoreUserState, context: StepContext) -> None:
    """Puts the files back, then compares them with the copy."""
    volume = await volumes.find(context, arguments.volume)
    kind = await files.kind_of(context, volume)
    fetched = context.step_directory / ARCHIVE
    if arguments.image is not None:
        await context.content.fetch(
            arguments.image, fetched, delivery="unicast", progress=lambda part: context.progress(0.3 * part)
        )
    async with volumes.mounted(context, volume) as root:
        if (context.checkpoint or {}).get("restored"):  # the copy may be gone by now
            await _drop_store(arguments, context, volume, root)
            return
        store = inside(root, arguments.store) if arguments.store is not None else context.step_directory
        archive = store / ARCHIVE
        if arguments.store is not None:
            await _verify(context, store)
        context.progress(0.3)
        noted = await _noted(context, archive) if kind == "ntfs" else {}
        links = {name: values for name, values in noted.items() if _REPARSE in values}
        left_out = context.step_directory / "left-out"
        left_out.write_text("".join(f"{name}\n" for name in (ATTRIBUTES, *links)))
        skip = ["--anchored", "--no-wildcards", f"--exclude-from={left_out}"]
        await archives.feed(context, archive, ["tar", "--extract", *skip, *_EXTRACT, "--directory", root], (0.3, 0.7))
        await asyncio.to_thread(_make_links, root, links)
        await in_slices(context.control, _attributes_written(root, noted))
        compare: list[str | Path] = ["tar", "--compare", *skip, "--directory", root, "--numeric-owner"]
        await archives.feed(context, archive, compare, (0.7, 1))
        await asyncio.to_thread(_compare_links, root, links)
        await context.save({"restored": True})
        await _drop_store(arguments, context, volume, root)


async def _noted(context: StepContext, archive: Path) -> dict[str, dict[str, str]]:
    """Returns the NTFS attributes in an archive."""
    member: list[str | Path] = ["tar", "--extract", "--to-stdout", "--file", archive, ATTRIBUTES]
    found = await context.tools.run(member, success_codes=(0, 2), quiet=True)
    noted: dict[str, dict[str, str]] = json.loads(found.output) if found.exit_code == 0 else {}
    return noted


async def _drop_store(arguments: RestoreUserState, context: StepContext, volume: Volume, root: Path) -> None:
    """Deletes the copy, if that is wanted, and lets later steps erase what was kept for it."""
    if arguments.store is None or not arguments.delete_store:
        return
    await asyncio.to_thread(delete_content, inside(root, arguments.store))
    gone = str(arguments.store).strip("/").split("/")[0]
    volumes.keep(context, arguments.volume, volume, [name for name in volume.keep if name != gone])


def _chosen(root: Path, patterns: list[str], exclude: list[str], store: str | None) -> Iterator[str]:
    """Yields the paths to save, relative to `root`, directories before what is in them."""
    seen = set()
    left_out = [pattern.strip("/") for pattern in exclude] + ([store.strip("/")] if store else [])
    for pattern in patterns:
        for name in sorted(glob.glob(pattern.strip("/"), root_dir=root, include_hidden=True)):
            for path in (name, *_below(root, name, left_out)):
                if path not in seen and not _matches(path, left_out):
                    seen.add(path)
                    yield path


def _below(root: Path, name: str, left_out: list[str]) -> Iterator[str]:
    top = root / name
    if top.is_symlink() or not top.is_dir() or _matches(name, left_out):
        return
    for directory, subdirectories, names in os.walk(top):
        relative = os.path.relpath(directory, root)
        subdirectories[:] = sorted(
            child for child in subdirectories if not _matches(os.path.join(relative, child), left_out)
        )
        for child in (*subdirectories, *sorted(names)):
            yield os.path.join(relative, child)


def _matches(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def _measured(root: Path, names: list[str], sizes: dict[tuple[int, int], int]) -> Iterator[None]:
    """Notes what each file will take at least in a tar, once if it has several names."""
    for name in names:
        about = (root / name).lstat()
        sizes[about.st_dev, about.st_ino] = min(about.st_size, about.st_blocks * 512) + 512
        yield


def _attributes_read(root: Path, names: list[str], found: dict[str, dict[str, str]]) -> Iterator[None]:
    for name in names:
        values = {}
        for attribute in (*_NTFS_ATTRIBUTES, *([_REPARSE] if (root / name).is_symlink() else [])):
            try:
                values[attribute] = os.getxattr(root / name, attribute, follow_symlinks=False).hex()
            except OSError:
                continue
        found[name] = values
        yield


def _attributes_written(root: Path, noted: dict[str, dict[str, str]]) -> Iterator[None]:
    # Children first: writing to a directory changes its times.
    for name, values in sorted(noted.items(), reverse=True):
        for attribute in _NTFS_ATTRIBUTES:
            value = bytes.fromhex(values.get(attribute, ""))
            if value and not (attribute == "system.ntfs_attrib" and (root / name).is_symlink()):
                os.setxattr(root / name, attribute, value, follow_symlinks=False)
        yield


def _make_links(root: Path, links: dict[str, dict[str, str]]) -> None:
    """Makes links of Windows what they were; also those that lead where this system cannot follow."""
    for name, values in links.items():
        path, data = root / name, bytes.fromhex(values[_REPARSE])
        attributes = int.from_bytes(bytes.fromhex(values.get("system.ntfs_attrib", "")), "little")
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if data.startswith(_JUNCTION) or attributes & _DIRECTORY_ATTRIBUTE:
            path.mkdir()
        else:
            path.touch()
        os.setxattr(path, _REPARSE, data, follow_symlinks=False)
        with contextlib.suppress(OSError):  # the kernel refuses once what has become a link under its eyes
            path.lstat()


def _compare_links(root: Path, links: dict[str, dict[str, str]]) -> None:
    for name, values in links.items():
        if os.getxattr(root / name, _REPARSE, follow_symlinks=False).hex() != values[_REPARSE]:
            raise StepError(f"the link {name} is not what it was")


async def _digest(context: StepContext, path: Path) -> str:
    digest = hashlib.sha256()

    def hashed() -> Iterator[None]:
        with path.open("rb") as file:
            while content := file.read(_BLOCK_BYTES):
                digest.update(content)
                yield

    await in_slices(context.control, hashed())
    return digest.hexdigest()


def _commit(partial: Path, digest: str) -> None:
    """Makes the copy count: from now on it survives the erase."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.with_name(DIGEST).write_text(f"{digest}\n")
    partial.replace(partial.with_name(ARCHIVE))
    os.sync()


def _take_back(store: Path, partial: Path) -> None:
    """Removes what an attempt that did not succeed has written: the machine stays as it was."""
    partial.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        store.rmdir()


async def _verify(context: StepContext, store: Path) -> None:
    try:
        wanted = (store / DIGEST).read_text().strip()
        found = await _digest(context, store / ARCHIVE)
    except OSError as error:
        raise StepError(f"there is no saved state in {store.name}: {error.strerror}") from error
    if found != wanted:
        raise StepError(f"the saved state in {store.name} is damaged: its digest is {found}, not {wanted}")
