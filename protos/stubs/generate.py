"""Generates the Python stubs of every proto into this folder. Run by `make stubs`; never edit what it writes."""

import shutil
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

STUBS = Path(__file__).resolve().parent
PROTOS = STUBS.parent


def generate(out: Path) -> None:
    """Write the generated package `fleetcast` below `out`, replacing what was there.

    Raises:
        SystemExit: the compiler refused a file.
    """
    shutil.rmtree(out / "fleetcast", ignore_errors=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("fleetcast/**/*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    google = Path(next(iter(__import__("google.rpc").rpc.__path__))).parent.parent
    tools = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{well_known}",
            f"-I{google}",
            *(f"--plugin=protoc-gen-{name}={tools / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
    )
    if status:
        sys.exit(status)
    for folder in (out / "fleetcast").rglob("*"):
        if folder.is_dir() and any(folder.glob("*_pb2.py")):
            (folder / "__init__.py").touch()
            (folder / "py.typed").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
