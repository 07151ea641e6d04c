"""Virtual disks of every kind that qemu-img converts to the raw disk they describe."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fleetcast_kit.errors import FailedPreconditionError, InternalError, ResourceExhaustedError

from fleetcast_catalog.images.domain import ImageFileError, ImageFormat, corrupt, truncated

_TOOL = "qemu-img"
_PACKAGE = "qemu-utils"
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_BEYOND_END = re.compile(
    r"exceeding the end|after EOF|after end of file|truncated|beyond the end|outside image", re.IGNORECASE
)
_OUTPUT_BYTES = 4096
_DRIVERS = {ImageFormat.VHD: "vpc"}
"""What qemu-img calls a format, where it is not its name."""


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


async def convert(path: Path, form: ImageFormat, target: Path, report: Callable[[float], None]) -> None:
    """Writes the disk that `path` describes to the new sparse file `target`.

    Calls `report` with the share done, 0 to 1.

    Raises:
        ImageFileError: the file is truncated or damaged.
        ResourceExhaustedError: there is no room for the disk.
    """
    # qemu-img would convert what lies beyond the end of a truncated file to zeros; only its check notices.
    kind = _DRIVERS.get(form, form.name.lower())
    async with _qemu_img("check", "-q", "-f", kind, str(path), output=asyncio.subprocess.DEVNULL) as process:
        problem = await _tail(process)
        # 3: only leaked clusters, no damage. 63: this kind cannot be checked.
        if await process.wait() not in (0, 3, 63):
            raise _damaged(problem, path)
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
            raise _damaged(problem, path, target)


async def replay(path: Path, form: ImageFormat) -> None:
    """Completes in the file at `path`, a copy of the catalog's own, what its last user did not get to write.

    Raises:
        ImageFileError: the file is damaged.
    """
    kind = _DRIVERS.get(form, form.name.lower())
    arguments = ("check", "-q", "-r", "all", "-f", kind, str(path))
    async with _qemu_img(*arguments, output=asyncio.subprocess.DEVNULL) as process:
        problem = await _tail(process)
        if await process.wait() not in (0, 3):
            raise _damaged(problem, path)


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


def _damaged(problem: str, path: Path, target: Path | None = None) -> ImageFileError | ResourceExhaustedError:
    # The operator knows the file by another name: that of the catalog's copy says nothing, and is gone soon.
    lines = problem.replace(f"'{path}'", "it").replace(str(path), "it").strip().splitlines()
    if target is not None and "No space left on device" in problem:
        return ResourceExhaustedError(
            f"no room on the server to convert the virtual disk: the file system of {target.parents[1]} is full",
            reason="DISK_FULL",
        )
    if _BEYOND_END.search(problem):
        return truncated("parts of the disk lie beyond the end of the file")
    said = (lines or [f"{_TOOL} says nothing more"])[-1]
    return corrupt(f"{_TOOL} refuses it ({said.removeprefix(f'{_TOOL}: ')})")
