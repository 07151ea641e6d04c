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

from fleetcast_sequence.steps.content import CaptureUserState, RestoreUserState

from fleetcast_agent.sequence import files, volumes
from fleetcast_agent.sequence.content import delete_content
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.files import inside
from fleetcast_agent.sequence.volumes import Volume

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
_FORMAT = ("--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")
_EXTRACT = ("--numeric-owner", "--same-owner", "--same-permissions", "--xattrs", "--xattrs-include=*", "--acls")


async def capture_user_state(arguments: CaptureUserState, context: StepContext) -> None:
    """Saves the files, then compares the copy with the originals before it calls itself done."""
    volume = await volumes.find(context, arguments.volume)
    kind = await files.kind_of(context, volume)
    read_only = arguments.store is None
    async with volumes.mounted(context, volume, read_only=read_only) as root:
        names = await asyncio.to_thread(
            lambda: list(_chosen(root, arguments.paths, arguments.exclude, arguments.store))
        )
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
    await context.tools.run(
        ["tar", "--create", *_FORMAT, "--file", partial, "--directory", root, *names_from], stdin=listed
    )
    context.progress(0.4)
    await context.control.go()
    await context.tools.run(["tar", "--compare", "--file", partial, "--directory", root, "--numeric-owner"])
    context.progress(0.6)
    if kind == "ntfs":
        noted = await asyncio.to_thread(_read_attributes, root, names)
        (context.step_directory / ATTRIBUTES).write_text(json.dumps(noted))
        member: list[str | Path] = ["--directory", context.step_directory, ATTRIBUTES]
        await context.tools.run(["tar", "--append", "--format=posix", "--file", partial, *member])
    digest = await asyncio.to_thread(_digest, partial)
    context.progress(0.8)
    if arguments.image is not None:
        version = await context.content.publish(partial, arguments.image, progress=lambda part: None)
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
        await context.content.fetch(arguments.image, fetched, delivery="unicast", progress=context.progress)
    async with volumes.mounted(context, volume) as root:
        if (context.checkpoint or {}).get("restored"):  # the copy may be gone by now
            await _drop_store(arguments, context, volume, root)
            return
        store = inside(root, arguments.store) if arguments.store is not None else context.step_directory
        archive = store / ARCHIVE
        if arguments.store is not None:
            await asyncio.to_thread(_verify, store)
        context.progress(0.3)
        noted = await _noted(context, archive) if kind == "ntfs" else {}
        links = {name: values for name, values in noted.items() if _REPARSE in values}
        left_out = context.step_directory / "left-out"
        left_out.write_text("".join(f"{name}\n" for name in (ATTRIBUTES, *links)))
        skip = ["--anchored", "--no-wildcards", f"--exclude-from={left_out}"]
        await context.tools.run(["tar", "--extract", *skip, *_EXTRACT, "--file", archive, "--directory", root])
        await asyncio.to_thread(_make_links, root, links)
        await asyncio.to_thread(_write_attributes, root, noted)
        context.progress(0.7)
        await context.tools.run(["tar", "--compare", *skip, "--file", archive, "--directory", root, "--numeric-owner"])
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


def _read_attributes(root: Path, names: list[str]) -> dict[str, dict[str, str]]:
    found = {}
    for name in names:
        values = {}
        for attribute in (*_NTFS_ATTRIBUTES, *([_REPARSE] if (root / name).is_symlink() else [])):
            try:
                values[attribute] = os.getxattr(root / name, attribute, follow_symlinks=False).hex()
            except OSError:
                continue
        found[name] = values
    return found


def _write_attributes(root: Path, noted: dict[str, dict[str, str]]) -> None:
    # Children first: writing to a directory changes its times.
    for name, values in sorted(noted.items(), reverse=True):
        for attribute in _NTFS_ATTRIBUTES:
            value = bytes.fromhex(values.get(attribute, ""))
            if value and not (attribute == "system.ntfs_attrib" and (root / name).is_symlink()):
                os.setxattr(root / name, attribute, value, follow_symlinks=False)


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


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _verify(store: Path) -> None:
    try:
        wanted = (store / DIGEST).read_text().strip()
        found = _digest(store / ARCHIVE)
    except OSError as error:
        raise StepError(f"there is no saved state in {store.name}: {error.strerror}") from error
    if found != wanted:
        raise StepError(f"the saved state in {store.name} is damaged: its digest is {found}, not {wanted}")
