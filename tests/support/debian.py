"""Small Debian systems that tests start: built once from Debian's packages, and kept between runs."""

import fcntl
import hashlib
import os
import subprocess
import time
from pathlib import Path

from tests.support.isolation import in_the_host_network

BUILD_SECONDS = 900
"""A busy core unpacks the packages in two to five minutes."""

KEEP_DAYS = 30
"""An archive that is older is built anew, so that it has Debian's present packages."""


class DebianError(Exception):
    """No Debian could be built; the message says why."""


def kept_debian(suite: str, packages: str, *options: str) -> Path:
    """Returns an archive (tar) of the suite's smallest system with the packages (names, separated by commas).

    It is built unless an earlier run left it in the cache directory of the user; whoever wants it meanwhile waits.

    Raises:
        DebianError: it cannot be built here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fleetcast-tests")
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((suite, packages, options)).encode()).hexdigest()[:16]
    archive = cache / f"{suite}-{key}.tar"
    with (cache / f"{suite}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_fresh(archive):
            _build(archive, suite, packages, options)
    return archive


def _is_fresh(archive: Path) -> bool:
    return archive.exists() and archive.stat().st_mtime > time.time() - KEEP_DAYS * 86_400


def _build(archive: Path, suite: str, packages: str, options: tuple[str, ...]) -> None:
    unfinished = archive.with_suffix(".new.tar")
    command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", *options, suite, str(unfinished)]
    try:
        built = subprocess.run(
            in_the_host_network(command), check=False, capture_output=True, text=True, timeout=BUILD_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DebianError(f"no Debian could be built here: {error}") from error
    if built.returncode:
        unfinished.unlink(missing_ok=True)
        raise DebianError(f"no Debian could be built here: {built.stderr[-300:]}")
    unfinished.rename(archive)
