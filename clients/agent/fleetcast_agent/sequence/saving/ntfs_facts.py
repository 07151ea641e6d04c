"""What NTFS knows of a file and a tar does not hold: read from the records, written to a mounted volume, compared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetcast_sequence.steps.content import CaptureUserState

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import (
    DATA,
    EXTENDED_ATTRIBUTES,
    REPARSE_POINT,
    ROOT_RECORD,
    STANDARD_INFORMATION,
    Record,
)
from fleetcast_agent.sequence.saving.chosen import Found, NtfsTree, chosen, shown, tag_of
from fleetcast_agent.sequence.saving.reparse import (
    JUNCTION,
    LINKS,
    REPARSE,
    is_online_only,
    kept_elsewhere,
    put_on,
    take_off,
)

MEMBER = "fleetcast-ntfs-attributes.json"
"""Member of the archive with the facts of every file, by its path."""
STREAMS = "fleetcast-ntfs-streams"
"""Directory in the archive with the named streams of files that lie behind a mount, as `path:name`."""
APART = "apart"
"""Fact: the named streams of the file are members of their own."""
ATTRIBUTES = "system.ntfs_attrib"
_ACL, _TIMES = "system.ntfs_acl", "system.ntfs_times"
_EA, _SHORT_NAME = "system.ntfs_ea", "system.ntfs_dos_name"
"""ntfs-3g takes and shows them as extended attributes."""
_SETTABLE = (_ACL, ATTRIBUTES, _EA)
_DIRECTORY = 0x10
_COMPARED_ATTRIBUTES = 0x27
"""Read only, hidden, system, archive."""
_LOST_ATTRIBUTES = {
    0x00004000: "encrypt what is put into this folder",
    0x00080000: "always keep on this device",
    0x00100000: "free up space",
}
"""Marks that ntfs-3g cannot set."""
_LARGEST_XATTR_BYTES = 1 << 16
"""Linux shows no longer ones (XATTR_SIZE_MAX)."""
_LONGEST_XATTR_NAME = 255 - len("user.")

Facts = dict[str, Any]


@dataclass
class Collected:
    """What there is to save on an NTFS volume."""

    visible: list[str] = field(default_factory=list)
    """What a mount shows as it is."""
    behind: list[Found] = field(default_factory=list)
    """What a mount hides or shows in part, directories before what is in them."""
    facts: dict[str, Facts] = field(default_factory=dict)
    encrypted: dict[str, int] = field(default_factory=dict)
    """Files that EFS encrypted, and their sizes in bytes."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Files whose content something keeps in another place of the volume, and what does."""
    online_only: int = 0
    """How many files have no content on this disk."""
    stored_bytes: int = 0
    """What is behind the mount."""


def collect(volume: NtfsVolume, arguments: CaptureUserState, into: Collected) -> Iterator[None]:
    """Finds what is to be saved, and notes its facts."""
    for found in chosen(NtfsTree(volume, LINKS), arguments):
        record = found.record
        tag = tag_of(volume, record)
        facts = _facts(volume, record, found.path)
        streams = record.streams
        if any(stream.encrypted for stream in streams.values()):
            into.encrypted[found.path] = sum(stream.size_bytes for stream in streams.values())
        elif tag is not None and (keeper := kept_elsewhere(tag)):
            into.elsewhere[found.path] = keeper
        main = streams.get("")
        if tag is not None and main is not None:
            flags = int.from_bytes(bytes.fromhex(facts[ATTRIBUTES]), "little")
            into.online_only += is_online_only(tag, flags, main.size_bytes, main.stored_bytes)
        into.facts[found.path] = facts
        if tag in LINKS and not found.behind and not named(record):
            pass  # its facts are all there is of it
        elif found.behind or tag is not None or not _shown_whole(record):
            into.behind.append(found)
            facts[APART] = bool(named(record))
            into.stored_bytes += sum(stream.stored_bytes + 1024 for stream in streams.values()) + 1024
        else:
            into.visible.append(found.path)
        yield


def named(record: Record) -> list[str]:
    """Returns the names of a file's streams but the main one."""
    return sorted(name for name in record.streams if name)


def _shown_whole(record: Record) -> bool:
    """Returns whether a mount shows every stream of the file as an extended attribute."""
    streams = {name.encode("utf-8", "surrogatepass"): item for name, item in record.streams.items() if name}
    return (
        all(item.size_bytes <= _LARGEST_XATTR_BYTES for item in streams.values())
        and all(len(name) <= _LONGEST_XATTR_NAME for name in streams)
        and sum(len(name) + 6 for name in streams) < _LARGEST_XATTR_BYTES // 2
    )


def _facts(volume: NtfsVolume, record: Record, path: str) -> Facts:
    information = record.find(STANDARD_INFORMATION)
    if information is None or information.value is None or len(information.value) < 36:
        raise StepError(f"the record of /{path} is damaged: let Windows check the volume (chkdsk)")
    created, written, changed, read, flags = struct.unpack_from("<4QI", information.value)
    flags |= _DIRECTORY if record.is_directory else 0
    facts: Facts = {
        ATTRIBUTES: struct.pack("<I", flags).hex(),
        _TIMES: struct.pack("<4Q", created, written, read, changed).hex(),
    }
    if descriptor := volume.security_descriptor(record):
        facts[_ACL] = descriptor.hex()
    for kind, name in ((EXTENDED_ATTRIBUTES, _EA), (REPARSE_POINT, REPARSE)):
        if (attribute := record.find(kind)) is not None:
            facts[name] = volume.content(attribute).hex()
    short = [name.name for name in record.names if name.is_short]
    if len(short) == 1 and len(record.names) == 2:
        facts[_SHORT_NAME] = short[0].encode("utf-8", "surrogatepass").hex()
    if streams := {name: digest(volume, record, name) for name in named(record)}:
        facts["streams"] = streams
    if REPARSE in facts and "" in record.streams:
        facts["content"] = digest(volume, record, "")
    return facts


def digest(volume: NtfsVolume, record: Record, stream: str) -> list[Any]:
    """Returns the size of a stream in bytes and a SHA-256 of its content that passes over what is zero."""
    attribute = record.find(DATA, stream)
    if attribute is None or attribute.encrypted:
        return [0, ""]
    hashed = hashlib.sha256()
    for offset, block in volume.blocks(attribute):
        hashed.update(struct.pack("<Q", offset) + block)
    return [attribute.size_bytes, hashed.hexdigest()]


def uncover(root: Path, facts: Mapping[str, Facts]) -> None:
    """Takes the reparse data off what an attempt before this one has put back, so that the files can be written."""
    for name in sorted(name for name, values in facts.items() if REPARSE in values):
        with contextlib.suppress(OSError):
            if not is_link(facts[name]) and (root / name).is_symlink():
                take_off(root / name)


def write(root: Path, facts: Mapping[str, Facts], failed: list[str]) -> Iterator[None]:
    """Gives the files their attributes; adds to `failed` what could not be given and does not change their content."""
    # Children first: writing to a directory changes its times.
    for name, values in sorted(facts.items(), reverse=True):
        path = root / name
        for attribute in (*_SETTABLE, _SHORT_NAME, _TIMES):
            value = bytes.fromhex(values.get(attribute, ""))
            if not value or (attribute == ATTRIBUTES and path.is_symlink()):
                continue
            try:
                os.setxattr(path, attribute, value, follow_symlinks=False)
            except OSError as error:
                if attribute != _SHORT_NAME:
                    raise
                failed.append(f"the short name {value.decode(errors='replace')} of /{name}: {error.strerror}")
        yield


def make_links(root: Path, facts: Mapping[str, Facts]) -> Iterator[None]:
    """Makes the links of Windows, wherever they lead; a system other than Windows cannot follow all of them."""
    for name, values in facts.items():
        if is_link(values):
            _make_room(root / name, is_directory=_is_directory_link(values))
            put_on(root / name, bytes.fromhex(values[REPARSE]))
            yield


def cover(root: Path, facts: Mapping[str, Facts]) -> Iterator[None]:
    """Makes files the reparse points they were, those below first; after this a mount does not show them any more."""
    for name, values in sorted(facts.items(), reverse=True):
        if REPARSE in values and not is_link(values):
            put_on(root / name, bytes.fromhex(values[REPARSE]))
            yield


def compare(volume: NtfsVolume, facts: Mapping[str, Facts], failed: list[str]) -> Iterator[None]:
    """Adds to `failed` what is not as it was, but not part of the files' content.

    Raises:
        StepError: content, a stream, a link or a time is not as it was.
    """
    directories: dict[str, dict[str, int]] = {}
    differ: dict[str, list[str]] = {}
    for name, values in facts.items():
        record = _at(volume, name, directories)
        found = _facts(volume, record, name)
        for fact, what in ((REPARSE, "kind"), ("streams", "named streams"), ("content", "content")):
            if fact in values and values[fact] != found.get(fact):
                raise StepError(f"/{name} was put back, but its {what} is not what it was")
        if _TIMES in values and values[_TIMES][:32] != found[_TIMES][:32]:
            raise StepError(f"/{name} was put back, but its times are not what they were")
        for fact, what in ((_ACL, "permissions"), (_EA, "extended attributes")):
            if fact in values and values[fact] != found.get(fact):
                differ.setdefault(f"{what} not as they were", []).append(name)
        wanted, present = (int.from_bytes(bytes.fromhex(one.get(ATTRIBUTES, "")), "little") for one in (values, found))
        # The marks of a link itself say nothing of what it leads to, and are set anew by whoever makes it.
        if ATTRIBUTES in values and not is_link(values) and (wanted ^ present) & _COMPARED_ATTRIBUTES:
            differ.setdefault("attributes not as they were", []).append(name)
        for bit, mark in _LOST_ATTRIBUTES.items():
            if wanted & ~present & bit:
                differ.setdefault(f"lost the mark '{mark}'", []).append(name)
        yield
    failed += [
        f"{what}, of {len(names)} files: /{names[0]}" + " …" * (len(names) > 1) for what, names in differ.items()
    ]


def _at(volume: NtfsVolume, path: str, directories: dict[str, dict[str, int]]) -> Record:
    """Returns the record of a path; keeps what is in the directories on the way."""
    above, _, name = path.rpartition("/")
    if above not in directories:
        directory = _at(volume, above, directories) if above else volume.record(ROOT_RECORD)
        children = volume.children(directory) if directory is not None else {}
        directories[above] = {shown(child): number for child, number in children.items()}
    record = volume.record(directories[above][name]) if name in directories[above] else None
    if record is None:
        raise StepError(f"/{path} was put back, but it is not there")
    return record


def is_link(values: Facts) -> bool:
    """Returns whether a file is a link of Windows, and nothing else."""
    return not values.get(APART) and int.from_bytes(bytes.fromhex(values.get(REPARSE, ""))[:4], "little") in LINKS


def _is_directory_link(values: Facts) -> bool:
    attributes = int.from_bytes(bytes.fromhex(values.get(ATTRIBUTES, "")), "little")
    data = bytes.fromhex(values[REPARSE])
    return int.from_bytes(data[:4], "little") == JUNCTION or bool(attributes & _DIRECTORY)


def _make_room(path: Path, *, is_directory: bool) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    if is_directory:
        path.mkdir()
    else:
        path.touch()
