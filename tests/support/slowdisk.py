"""A block device that takes only so many bytes a second: a loop device under a limit of the block layer. Root only."""

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_LIMIT = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")


def why_unavailable() -> str:
    """Returns why there can be no slow disk here, in one line; empty if there can."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        return "a slow disk needs root and losetup"
    return "" if _LIMIT.exists() else f"a slow disk needs {_LIMIT}, the first version of control groups"


class SlowDisk:
    """A device of `size_bytes`, kept in `file`, that writes `rate_bytes_per_second`; a context manager.

    Writes that fit the page cache are fast, as on any disk; flushing them is not.
    """

    def __init__(self, file: Path, size_bytes: int, rate_bytes_per_second: int) -> None:
        self.file = file
        self.rate_bytes_per_second = rate_bytes_per_second
        self._size_bytes = size_bytes
        self.device = Path()
        """The device, while the context is open."""

    def __enter__(self) -> Self:
        with self.file.open("wb") as file:
            file.truncate(-(-self._size_bytes // 4096) * 4096)
        attach = ["losetup", "--find", "--show", str(self.file)]
        self.device = Path(subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip())
        self._limit(self.rate_bytes_per_second)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit(0)
        subprocess.run(["losetup", "--detach", self.device], check=False, capture_output=True)

    def _limit(self, rate_bytes_per_second: int) -> None:
        number = self.device.stat().st_rdev
        _LIMIT.write_text(f"{os.major(number)}:{os.minor(number)} {rate_bytes_per_second}\n")
