"""Programs that read what other tools wrote: started, fed with the bytes of a source, and ended with the import."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fleetcast_kit.errors import FailedPreconditionError

from fleetcast_catalog.images.importing.sources import ImportInterruptedError, Source

_COPY_BYTES = 1 << 20
_HEARD_BYTES = 4096
_MAX_OUTPUT_BYTES = 1 << 20
_POLL_SECONDS = 0.2
# Debian keeps some of them where only root looks.
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def tool(name: str, *, package: str, purpose: str) -> str:
    """Returns the path of a program. `purpose` begins the sentence that says why it is needed: `virtual disks`.

    Raises:
        FailedPreconditionError: it is not installed; names the package to install.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise FailedPreconditionError(
            f"{purpose} need {name}, which is not installed on the server: apt install {package}",
            reason="TOOL_MISSING",
            metadata={"tool": name, "package": package},
        )
    return found


def spool(content: Source, target: Path, interrupted: threading.Event) -> None:
    """Writes what is left of `content` to the file `target`.

    Raises:
        ImportInterruptedError: `interrupted` was set.
    """
    buffer = memoryview(bytearray(_COPY_BYTES))
    with target.open("wb") as file:
        while count := content.read_into(buffer):
            if interrupted.is_set():
                raise ImportInterruptedError
            file.write(buffer[:count])


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    output: str
    """The first MiB of its standard output."""
    said: str
    """The end of its standard error."""

    @property
    def last_line(self) -> str:
        """The last that it said, for a message."""
        lines = [line.strip() for line in (self.said or self.output).splitlines() if line.strip()]
        return lines[-1] if lines else "it says nothing"


def run(arguments: Sequence[str | Path], interrupted: threading.Event, *, stdin: Source | bytes = b"") -> Ended:
    """Runs a program, fed with `stdin`, and returns how it ended. Blocks.

    Raises:
        ImportInterruptedError: `interrupted` was set; the program has ended.
    """
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C.UTF-8", "TERM": "dumb"},
    )
    output, said = _Heard(process.stdout, keep_end=False), _Heard(process.stderr, keep_end=True)
    try:
        _feed(process, stdin, interrupted)
        while True:
            if interrupted.is_set():
                raise ImportInterruptedError
            try:
                code = process.wait(_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        output.join()
        said.join()
    return Ended(code, output.text, said.text)


class _Heard(threading.Thread):
    """Reads what a program writes, and keeps its beginning or end: a damaged file may make it say gigabytes."""

    def __init__(self, pipe: IO[bytes] | None, *, keep_end: bool) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._keep_end = keep_end
        self._kept = b""
        self.start()

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()

    def run(self) -> None:
        if self._pipe is None:
            return
        with self._pipe as pipe:
            while data := pipe.read(_HEARD_BYTES):
                if self._keep_end:
                    self._kept = (self._kept + data)[-_HEARD_BYTES:]
                elif len(self._kept) < _MAX_OUTPUT_BYTES:
                    self._kept += data


def _feed(process: subprocess.Popen[bytes], stdin: Source | bytes, interrupted: threading.Event) -> None:
    if process.stdin is None:
        return
    buffer = memoryview(bytearray(_COPY_BYTES))
    try:
        with process.stdin as pipe:
            if isinstance(stdin, bytes):
                pipe.write(stdin)
                return
            while count := stdin.read_into(buffer):
                if interrupted.is_set():
                    raise ImportInterruptedError
                pipe.write(buffer[:count])
    except BrokenPipeError:
        return  # it ended; its exit code says why
