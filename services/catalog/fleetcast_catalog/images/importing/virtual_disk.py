"""Virtual disks: qcow2, vhdx and vmdk files, converted by qemu-img to the raw disk they describe."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError, InternalError, ResourceExhaustedError

from fleetcast_catalog.images.domain import ImageFileError, ImageFormat, corrupt, truncated, unsupported

_TOOL = "qemu-img"
_PACKAGE = "qemu-utils"
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_BEYOND_END = re.compile(r"exceeding the end|after EOF|after end of file|truncated|beyond the end", re.IGNORECASE)
_OUTPUT_BYTES = 4096
_START_BYTES = 64 << 10
# Wherever the header says the descriptor is, QEMU looks for a parent here (block/vmdk.c).
_QEMU_DESCRIPTOR = slice(512, 512 + 20 * 512)
_PARENT = re.compile(rb"parentCID\s*=\s*([0-9a-fA-F]+)")
_WHOLE_SPARSE = re.compile(rb'createType="(?:monolithicSparse|streamOptimized)"')
_EXTENT = re.compile(rb"^\s*(?:RW|RDONLY|NOACCESS)\s", re.MULTILINE)
_NO_PARENT = b"ffffffff"


def require_tool() -> None:
    """Checks that qemu-img is installed.

    Raises:
        FailedPreconditionError: it is not; names the package to install.
    """
    if shutil.which(_TOOL) is None:
        raise FailedPreconditionError(
            f"virtual disks need {_TOOL}, which is not installed on the server: apt install {_PACKAGE}",
            reason="TOOL_MISSING",
            metadata={"tool": _TOOL, "package": _PACKAGE},
        )


def check_self_contained(path: Path, form: ImageFormat) -> None:
    """Checks that the file holds all of its disk: who may import a file must not reach others of the server through it.

    qemu itself refuses VHDX files with a parent.

    Raises:
        ImageFileError: parts of the disk are, or claim to be, in other files.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if form is ImageFormat.QCOW2:
        _check_qcow2(start)
    elif form is ImageFormat.VMDK:
        _check_vmdk(start)


async def convert(path: Path, form: ImageFormat, target: Path, report: Callable[[float], None]) -> None:
    """Writes the disk that `path` describes to the new sparse file `target`.

    Calls `report` with the share done, 0 to 1.

    Raises:
        ImageFileError: the file is truncated or damaged.
        ResourceExhaustedError: there is no room for the disk.
    """
    # qemu-img would convert what lies beyond the end of a truncated file to zeros; only its check notices.
    kind = form.name.lower()
    async with _qemu_img("check", "-q", "-f", kind, str(path), output=asyncio.subprocess.DEVNULL) as process:
        problem = await _tail(process)
        # 3: only leaked clusters, no damage. 63: this kind cannot be checked.
        if await process.wait() not in (0, 3, 63):
            raise _damaged(problem)
    arguments = ("convert", "-p", "-f", kind, "-O", "raw", str(path), str(target))
    async with _qemu_img(*arguments, output=asyncio.subprocess.PIPE) as process:
        if process.stdout is None:
            raise InternalError(f"{_TOOL} was started without its output")
        problem_task = asyncio.create_task(_tail(process))
        try:
            while output := await process.stdout.read(_OUTPUT_BYTES):
                if percents := _PERCENT.findall(output):
                    report(float(percents[-1]) / 100)
            problem = await problem_task
        finally:
            problem_task.cancel()
        if await process.wait() != 0:
            raise _damaged(problem, target)


@asynccontextmanager
async def _qemu_img(*arguments: str, output: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yields the running tool; it does not outlive the block."""
    require_tool()
    process = await asyncio.create_subprocess_exec(
        _TOOL,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _tail(process: asyncio.subprocess.Process) -> str:
    """Returns the end of what the tool says on standard error; a damaged file may make it say gigabytes."""
    tail = b""
    if process.stderr is not None:
        while output := await process.stderr.read(_OUTPUT_BYTES):
            tail = (tail + output)[-_OUTPUT_BYTES:]
    return tail.decode(errors="replace")


def _damaged(problem: str, target: Path | None = None) -> ImageFileError | ResourceExhaustedError:
    lines = problem.strip().splitlines() or [f"{_TOOL} says nothing more"]
    if target is not None and "No space left on device" in problem:
        return ResourceExhaustedError(
            f"no room to convert the virtual disk: the file system of {target.parent} is full", reason="DISK_FULL"
        )
    if _BEYOND_END.search(problem):
        return truncated("parts of the disk lie beyond the end of the file")
    return corrupt(f"{_TOOL} refuses it ({lines[-1].removeprefix(f'{_TOOL}: ')})")


def _check_qcow2(start: bytes) -> None:
    # docs/interop/qcow2.txt of QEMU.
    if len(start) < 72:
        raise truncated("a qcow2 file has a header of at least 72 bytes")
    version, backing_offset = struct.unpack_from(">IQ", start, 4)
    incompatible_features = struct.unpack_from(">Q", start, 72)[0] if version >= 3 and len(start) >= 80 else 0
    if backing_offset:
        raise unsupported("is only the difference to a backing file: flatten it with `qemu-img convert` first")
    if incompatible_features & 0x4:
        raise unsupported("keeps its data in another file: make one file of it with `qemu-img convert` first")


def _check_vmdk(start: bytes) -> None:
    # VMware, "Virtual Disk Format 5.0": sparse extents embed a descriptor, which may name other files.
    if start.startswith(b"# Disk"):
        raise unsupported("is only the description of a disk that lies in other files: make one file of it first")
    if len(start) < 512:
        raise truncated("a vmdk file has a header of 512 bytes")
    descriptor = start[_QEMU_DESCRIPTOR]
    if start.startswith(b"KDMV"):
        (capacity_sectors,) = struct.unpack_from("<Q", start, 12)
        offset_sectors, size_sectors = struct.unpack_from("<QQ", start, 28)
        if not capacity_sectors:
            raise unsupported("has no size of its own: make one file of the disk with `qemu-img convert` first")
        if size_sectors:
            described = start[offset_sectors * 512 : (offset_sectors + size_sectors) * 512].rstrip(b"\0")
            if not _WHOLE_SPARSE.search(described) or len(_EXTENT.findall(described)) > 1:
                raise unsupported("is only a part of a disk: make one file of it with `qemu-img convert` first")
            descriptor += described
    parents = _PARENT.findall(descriptor)
    if b"parentFileNameHint" in descriptor or any(parent.lower() != _NO_PARENT for parent in parents):
        raise unsupported("is only the difference to a parent disk: flatten it with `qemu-img convert` first")
