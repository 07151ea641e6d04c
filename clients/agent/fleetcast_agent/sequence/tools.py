"""Programs that steps run: found or explained, watched line by line, gone when the agent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetcast_agent.sequence import verdicts
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.errors import StepError

PACKAGES: Mapping[str, str] = {
    "sfdisk": "fdisk",
    "losetup": "mount",
    "blkid": "util-linux",
    "lsblk": "util-linux",
    "setpriv": "util-linux",
    "mkfs.ntfs": "ntfs-3g",
    "ntfs-3g": "ntfs-3g",
    "ntfsfix": "ntfs-3g",
    "ntfsresize": "ntfs-3g",
    "mkfs.fat": "dosfstools",
    "mcopy": "mtools",
    "mmd": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "xfs_growfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "btrfs": "btrfs-progs",
    "pvs": "lvm2",
    "pvresize": "lvm2",
    "lvextend": "lvm2",
    "lvcreate": "lvm2",
    "lvremove": "lvm2",
    "dmsetup": "dmsetup",
    "mkswap": "util-linux",
    "wipefs": "util-linux",
    "wimlib-imagex": "wimtools",
    "e2image": "e2fsprogs",
    "ntfsclone": "ntfs-3g",
    "grub-mkimage": "grub-common",
    "tar": "tar",
    "cabextract": "cabextract",
}
"""Debian package of each tool."""

OUTPUT_CHARS = 1 << 20
"""How much of a program's output is kept for its caller; the log has all of it."""
PIPE_SECONDS = 2
"""How long output may still arrive after a program ended: one it left in the background may hold the pipe."""
_SHOWN_LINES = 5
"""Lines of a program that an error repeats."""
_LINE_END = re.compile(rb"(\r?\n|\r(?=[^\n])|\x08+)")
"""Also where a program goes back to write over what it said."""


@dataclass(frozen=True)
class Finished:
    """A program that ended."""

    exit_code: int
    output: str
    """What it wrote to its standard output, the end of it if it was very long."""
    error_output: str
    """What it wrote to its standard error, the same way."""


class Tools:
    """Runs programs for one run of a task sequence."""

    def __init__(
        self, control: Control, log: Callable[[str], None], remark: Callable[[str], None] = lambda sentence: None
    ) -> None:
        """Takes what pauses and cancels the programs, what receives their lines, and what those that must be known."""
        self._control = control
        self._log = log
        self._remark = remark

    async def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: bytes | Callable[[], Awaitable[bytes]] = b"",
        environment: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
        success_codes: Sequence[int] = (0,),
        progress: Callable[[str], None] | None = None,
        quiet: bool = False,
        judged: bool = True,
    ) -> Finished:
        """Runs a program to its end. Cancelling this kills it with its children; the agent's death kills it too.

        `stdin` is all of its standard input, or returns the next part of it, an empty one at its end. `progress`
        receives each line, ended by a carriage return too; `quiet` keeps the output from the log.
        Without `judged` the exit code alone counts.

        Raises:
            StepError: it is not there, its exit code is not one of success, or its words say that something is missing
                from its result (see `verdicts`); says the end of what it wrote.
            Exception: what `stdin` raised, once the program has ended because of it.
        """
        words = [str(word) for word in command]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
        process = await asyncio.create_subprocess_exec(
            program("setpriv"),
            "--pdeathsig",
            "KILL",
            "--",
            program(words[0]),
            *words[1:],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=working_directory,
            start_new_session=True,
        )
        self._control.add_process_group(process.pid)
        output, errors = _Lines(self._log, progress, quiet), _Lines(self._log, progress, False)
        feeding = asyncio.ensure_future(_feed(process, stdin))
        pipes = [asyncio.ensure_future(lines) for lines in (output.read(process.stdout), errors.read(process.stderr))]
        try:
            exit_code = await process.wait()
            await asyncio.wait(pipes, timeout=PIPE_SECONDS)
        finally:
            for task in (feeding, *pipes):
                task.cancel()
            await asyncio.gather(feeding, *pipes, return_exceptions=True)
            self._control.remove_process_group(process.pid)
            if process.returncode is None:
                _kill(process.pid)
                await process.wait()
        if not feeding.cancelled():
            feeding.result()
        finished = Finished(exit_code, output.text, errors.text)
        if exit_code not in success_codes:
            name = Path(words[0]).name
            how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
            said = _complaint(finished)[-500:]
            raise StepError(f"{name} {how}: {said}" if said else f"{name} {how} and said nothing", exit_code=exit_code)
        if judged:
            self._judge(words, finished)
        return finished

    def _judge(self, words: Sequence[str], finished: Finished) -> None:
        verdict = verdicts.judge(words, finished.output, finished.error_output)
        if verdict.lost:
            more = f" (and {len(verdict.lost) - _SHOWN_LINES} more)" if len(verdict.lost) > _SHOWN_LINES else ""
            said = "; ".join(verdict.lost[:_SHOWN_LINES])
            raise StepError(f"{Path(words[0]).name} did not do all of its work: {said}{more}")
        for sentence in verdict.remarks:
            self._remark(f"{Path(words[0]).name}: {sentence}")


def _complaint(finished: Finished) -> str:
    """Returns what a program that failed says of it; some of those for NTFS say it to their standard output."""
    errors = [line for line in finished.output.splitlines() if line.startswith("ERROR")]
    return "\n".join([finished.error_output.strip(), *errors]).strip() or finished.output.strip()


def program(name: str) -> str:
    """Returns the path of the program `name`.

    Raises:
        StepError: it is not there; names the Debian package that has it.
    """
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        hint = f": install the Debian package {PACKAGES[name]}" if name in PACKAGES else ""
        raise StepError(f"the program {name} is not there{hint}", exit_code=127)
    return path


class _Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self, log: Callable[[str], None], progress: Callable[[str], None] | None, quiet: bool) -> None:
        self._log = log
        self._progress = progress
        self._quiet = quiet
        self._parts: deque[str] = deque()
        self._chars = 0

    @property
    def text(self) -> str:
        return "".join(self._parts)

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        rest = b""
        while stream is not None and (content := await stream.read(1 << 16)):
            self._keep(content.decode(errors="replace"))
            *parts, rest = _LINE_END.split(rest + content)
            if len(rest) > OUTPUT_CHARS:
                parts, rest = [*parts, rest, b"\n"], b""
            for line, end in zip(parts[::2], parts[1::2], strict=True):
                self._line(line, passing=not end.endswith(b"\n"))
        self._line(rest, passing=False)

    def _keep(self, text: str) -> None:
        self._parts.append(text)
        self._chars += len(text)
        while self._chars - len(self._parts[0]) > OUTPUT_CHARS:
            self._chars -= len(self._parts.popleft())

    def _line(self, line: bytes, *, passing: bool) -> None:
        """Takes a line; a passing one is overwritten on a terminal by the next, and is no matter for the log."""
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        if self._progress is not None:
            self._progress(text)
        if not self._quiet and not passing:
            self._log(text)


async def _feed(process: asyncio.subprocess.Process, content: bytes | Callable[[], Awaitable[bytes]]) -> None:
    if process.stdin is None:
        return
    try:
        part = content if isinstance(content, bytes) else await content()
        while part:
            process.stdin.write(part)
            await process.stdin.drain()
            part = b"" if isinstance(content, bytes) else await content()
    except (BrokenPipeError, ConnectionResetError):
        return  # it wants no more
    finally:
        process.stdin.close()


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
