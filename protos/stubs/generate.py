"""Generates the Python stubs of every proto into this folder. Run by `make stubs`; never edit what it writes."""

import shutil
import subprocess
import sys
from pathlib import Path

STUBS = Path(__file__).resolve().parent
PROTOS = STUBS.parent
COMPILER = STUBS / "compiler.lock"
"""The compiler, older than the library that this project runs with: what it writes is taken by protobuf from its own
version to the next major one, 6.31 to 7, so that a user's script may have either."""


def generate(out: Path) -> None:
    """Write the generated package `fleetcast` below `out`, replacing what was there.

    Raises:
        SystemExit: the compiler refused a file.
    """
    shutil.rmtree(out / "fleetcast", ignore_errors=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("fleetcast/**/*.proto"))
    google = Path(next(iter(__import__("google.rpc").rpc.__path__))).parent.parent
    tools = Path(sys.executable).parent
    alone = ["run", "--quiet", "--isolated", "--no-project", "--python", sys.executable, "--with-requirements"]
    compiled = subprocess.run(
        [
            tools / "uv",
            *alone,
            COMPILER,
            *("python", "-m", "grpc_tools.protoc"),
            f"-I{PROTOS}",
            f"-I{google}",
            *(f"--plugin=protoc-gen-{name}={tools / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ],
        check=False,
    )
    if compiled.returncode:
        sys.exit(compiled.returncode)
    for folder in (out / "fleetcast").rglob("*"):
        if folder.is_dir() and any(folder.glob("*_pb2.py")):
            (folder / "__init__.py").touch()
            (folder / "py.typed").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
