"""Builds what is written in C, where there is a C compiler.

All but parity and fingerprints needs Intel's multi-buffer library too (Debian: libipsec-mb-dev). Without them the
package is complete all the same, and slower.
"""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LIBRARIES = {
    "libparity.so": (["parity.c"], []),
    "libfingerprints.so": (["fingerprints.c"], []),
    "libnative.so": (["messages.c", "trains.c"], ["-lIPSec_MB"]),
}
"""The sources of each library, and the libraries that it needs."""


def _compile(sources: list[Path], needed: list[str], library: Path) -> str:
    """Make a shared library; return why it was not made, or nothing."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return "there is no C compiler"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared"]
    built = subprocess.run(
        [compiler, *flags, "-o", library, *sources, *needed], capture_output=True, text=True, check=False
    )
    return built.stderr if built.returncode else ""


class NativeHook(BuildHookInterface[Any]):
    """Compiles the sources in C beside them, and has the wheel take the result."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is put together."""
        folder = Path(self.root) / "fleetcast_wire"
        for name, (sources, needed) in _LIBRARIES.items():
            library = folder / name
            if failure := _compile([folder / source for source in sources], needed, library):
                library.unlink(missing_ok=True)
                self.app.display_warning(f"{', '.join(sources)} left out, which makes it slower: {failure}")
                continue
            build_data["artifacts"].append(f"fleetcast_wire/{name}")
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
