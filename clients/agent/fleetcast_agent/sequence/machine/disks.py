"""The disks of this machine: found by what a sequence calls them, and guarded against being erased by mistake."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine import geometry

_SYS_BLOCK = Path("/sys/class/block")
_NEVER = ("loop", "ram", "zram", "sr", "fd", "md", "dm-", "nbd", "mtdblock")
"""Kernel names of what is no disk of the machine's own."""


@dataclass(frozen=True)
class Disk:
    """A disk, or a file that stands for one."""

    path: Path
    size_bytes: int
    sector_bytes: int
    """Size of a logical sector; in a file, that of the GPT in it."""
    is_device: bool
    """A block device; otherwise a regular file."""
    model: str = ""
    serial: str = ""


class Disks:
    """Finds and guards the disks."""

    def __init__(self, named: Sequence[Path] = (), protected: Sequence[Path] = ()) -> None:
        """Takes the machine's disks, or the files that stand for them, and disks that no step may write to.

        With `named` the machine has these disks and no others, the first being its own: a rehearsal on files must not
        reach the disks of the computer that it runs on.
        """
        self._named = list(named)
        self._system = named[0] if named else None
        self._protected = [path.resolve() for path in protected]

    @property
    def named(self) -> bool:
        """Whether the agent was told which disks to use."""
        return bool(self._named)

    def find(self, selector: str) -> Disk:
        """Returns the disk that `system`, `serial:...` or a path says.

        Raises:
            StepError: there is none, or several could be meant.
        """
        disk = self._located(selector)
        if self._named and not any(
            _same(path, other) for path in (disk.path, whole_disk(disk.path)) for other in self._named
        ):
            raise StepError(f"{disk.path} is none of the disks that the agent was told to use: {_listed(self.all())}")
        return disk

    def _located(self, selector: str) -> Disk:
        if selector == "system":
            return self._of(self._system) if self._system is not None else self._only()
        if selector.startswith("serial:"):
            wanted = selector.removeprefix("serial:")
            found = [disk for disk in self.all() if disk.serial == wanted]
            if len(found) != 1:
                raise StepError(f"{len(found) or 'no'} disks have the serial number {wanted!r}: {_listed(self.all())}")
            return found[0]
        return self._of(Path(selector))

    def selector(self, path: Path) -> str:
        """Returns what finds the disk at `path` again, as far as possible also when its device has another name."""
        if self._system is not None and _same(path, self._system):
            return "system"
        serial = self._of(path).serial
        return f"serial:{serial}" if serial else str(path)

    def all(self) -> list[Disk]:
        """Returns the machine's own disks, none removable, read-only or virtual; those that were named."""
        if self._named:
            return [self._of(path) for path in self._named]
        names = sorted(entry.name for entry in Path("/sys/block").iterdir() if not entry.name.startswith(_NEVER))
        found = []
        for name in names:
            attributes = Path("/sys/block") / name
            path = Path("/dev", name)
            fixed = _read(attributes / "removable") != "1" and _read(attributes / "ro") != "1"
            if fixed and path.exists() and geometry.of_device(path)[0]:
                found.append(self._of(path))
        return found

    def erasable(self, selector: str, protect: Sequence[str] = ()) -> Disk:
        """Returns the disk that `selector` says, if it may be written to.

        Raises:
            StepError: it is protected, in use (mounted, swap, part of a RAID or volume group), or started from.
        """
        disk = self.find(selector)
        self.guard(disk.path, protect)
        return disk

    def guard(self, path: Path, protect: Sequence[str] = ()) -> None:
        """Does nothing if the disk or partition at `path` may be written to.

        Raises:
            StepError: as for `erasable`.
        """
        protected = [*self._protected, *(self._located(selector).path.resolve() for selector in protect)]
        for other in protected:
            if _same(path, other) or _same(whole_disk(path), other):
                raise StepError(f"{path} is protected: it will not be written to")
        users = sorted({*_users(path), *(user for loop in loops_of(path) for user in _users(loop))})
        if users:
            raise StepError(f"{path} is in use ({', '.join(users)}): it will not be written to")
        if stat.S_ISBLK(path.stat().st_mode):
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            except OSError as error:
                raise StepError(f"{path} is in use: it will not be written to ({error.strerror})") from error

    def clean_up(self, directory: Path) -> None:
        """Ends the mounts under `directory` and the loops over the machine's disk that a killed agent left behind."""
        for mount_point in reversed([point for _, point in _mounts() if point.is_relative_to(directory.resolve())]):
            subprocess.run(["umount", str(mount_point)], check=False, capture_output=True)
        for path in self._named or ([self._system] if self._system is not None else []):
            detach_stale_loops(path)

    def _only(self) -> Disk:
        free = [disk for disk in self.all() if not _users(disk.path)]
        if len(free) == 1:
            return free[0]
        hint = "name one by `serial:...` or its path"
        raise StepError(f"the machine has {len(free) or 'no'} free disks: {hint}: {_listed(self.all())}")

    def _of(self, path: Path) -> Disk:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise StepError(f"there is no disk {path}: {error.strerror}") from error
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise StepError(f"{path} is neither a block device nor a file that stands for a disk")
        size_bytes, sector_bytes = geometry.of_path(path)
        if stat.S_ISREG(mode):
            return Disk(path, size_bytes, sector_bytes, is_device=False)
        device = _SYS_BLOCK / path.resolve().name / "device"
        return Disk(path, size_bytes, sector_bytes, True, _read(device / "model"), _read(device / "serial"))


def whole_disk(path: Path) -> Path:
    """Returns the disk that the partition at `path` is on; `path` itself where it is no partition."""
    entry = _SYS_BLOCK / path.resolve().name
    if (entry / "partition").exists():
        return Path("/dev", entry.resolve().parent.name)
    return path


def loops_of(path: Path) -> list[Path]:
    """Returns the loop devices over the file or device at `path`."""
    found = []
    for entry in Path("/sys/block").glob("loop*"):
        backing = _read(entry / "loop/backing_file")
        if backing and _same(Path(backing), path):
            found.append(Path("/dev", entry.name))
    return found


def detach_stale_loops(path: Path, *, offset_bytes: int | None = None) -> None:
    """Detaches the loops over `path`, those at `offset_bytes` if given, that nothing uses."""
    for loop in loops_of(path):
        offset = _read(Path("/sys/block") / loop.name / "loop/offset")
        if not _users(loop) and offset_bytes in (None, int(offset or 0)):
            subprocess.run(["losetup", "--detach", str(loop)], check=False, capture_output=True)


def _users(path: Path) -> list[str]:
    """Returns what uses the disk or partition at `path`, or a partition of it."""
    return list(_found_users(path))


def _found_users(path: Path) -> Iterator[str]:
    try:
        status = path.stat()
    except OSError:
        return
    if not stat.S_ISBLK(status.st_mode):
        return
    entry = _SYS_BLOCK / path.resolve().name
    entries = [entry, *(child for child in entry.iterdir() if (child / "partition").exists())] if entry.exists() else []
    numbers = {_read(each / "dev") for each in entries} | {f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"}
    for number, point in _mounts():
        if number in numbers:
            yield f"mounted at {point}"
    swaps = [line.split()[0] for line in _read(Path("/proc/swaps")).splitlines()[1:]]
    names = {Path("/dev", each.name) for each in entries}
    for swap in swaps:
        if Path(swap).resolve() in names:
            yield f"swap {swap}"
    for each in entries:
        holders = each / "holders"
        for holder in holders.iterdir() if holders.exists() else ():
            yield f"part of {_holder_name(holder.name)}"


def _holder_name(name: str) -> str:
    """Returns what a person calls an array or a logical volume of the kernel's name `name`."""
    mapped = _read(_SYS_BLOCK / name / "dm/name")
    return f"{mapped} ({name})" if mapped else name


def _mounts() -> list[tuple[str, Path]]:
    """Returns device number and mount point of every mount, in the order they were made."""
    found = []
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
        found.append((fields[2], Path(point)))
        source = Path(line.partition(" - ")[2].split()[1])
        with contextlib.suppress(OSError):
            if source.is_absolute() and stat.S_ISBLK(source.stat().st_mode):
                number = source.stat().st_rdev
                found.append((f"{os.major(number)}:{os.minor(number)}", Path(point)))
    return found


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _listed(disks: Sequence[Disk]) -> str:
    return "; ".join(f"{disk.path} {disk.model} serial:{disk.serial}".strip() for disk in disks) or "there are none"
