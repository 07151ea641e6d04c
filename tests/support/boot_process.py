"""The boot service as a process, with decisions read from a file in place of the scheduler.

`python -m tests.support.boot_process DIRECTORY INTERFACE` reads `DIRECTORY/decisions.json` (by MAC address, and `*`
for others) at each question, and prints `ready`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from fleetcast_boot.deciding import Decisions
from fleetcast_boot.domain import Answer, Asker, Decision
from fleetcast_boot.images import BootImages
from fleetcast_boot.service import BootService
from fleetcast_kit.errors import UnavailableError
from fleetcast_kit.rpc.server import run_until_signal


class WrittenDecisions:
    """Decides as a file says."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def decide(self, asker: Asker, *, with_token: bool) -> Decision:
        """Returns what the file says of a machine."""
        decisions = json.loads(self._file.read_text())
        if "away" in decisions:
            raise UnavailableError("the scheduler is away")
        answer = Answer(decisions.get(asker.mac_address, decisions.get("*", Answer.SILENT)))
        return Decision(answer, "fct1-abc" if with_token else "", "as written")


def make_image(directory: Path, loader_bytes: int = 3_400_000, image_bytes: int = 4_000_000) -> None:
    """Makes a boot image of noise that is as large, in its parts, as a real one's are."""
    images = BootImages(directory)
    built = directory / "built"
    (built / "loaders").mkdir(parents=True)
    sizes = {"vmlinuz": image_bytes, "first.img": image_bytes, "root.squashfs": image_bytes}
    for name, size in (sizes | {"loaders/shimx64.efi": 950_000, "loaders/grubx64.efi": loader_bytes - 950_000}).items():
        (built / name).write_bytes(bytes([len(name)]) * size)
    image = images.add(
        built, architecture="amd64", kernel_version="6.1", agent_version="0.1.0", created_at="2026-01-01T00:00:00Z"
    )
    images.activate(image)


async def _main() -> None:
    directory = Path(sys.argv[1])
    service = BootService(
        interface=sys.argv[2],
        http_port=7480,
        images=BootImages(directory),
        decisions=Decisions(WrittenDecisions(directory / "decisions.json"), time.monotonic, 0.2),
        server="10.97.0.1:7443",
    )

    async def start() -> str:
        await service.start()
        return "ready"

    await run_until_signal(start, service.stop)


if __name__ == "__main__":
    asyncio.run(_main())
