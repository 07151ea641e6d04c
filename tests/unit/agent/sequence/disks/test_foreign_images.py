"""Files of other tools that must not become the content of a disk."""

import subprocess
from pathlib import Path

import pytest
from fleetcast_agent.receiving.messages import FIRST_LOOK_BYTES
from fleetcast_agent.sequence.disks.disk_images.settling import refuse_unfit, shows_table
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disk

DISK = Disk(Path("disk.img"), 100 << 20, 512, is_device=False)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"partclone-image\0" + bytes(4096), "a volume that partclone saved"),
        (b"conectix" + bytes(4096), "a VHD virtual disk"),
        (b"<<< QEMU VM Virtual Disk Image >>>\n" + bytes(4096), "a VDI virtual disk"),
        (b"\x1f\x8b\x08" + bytes(4096), "a file compressed by gzip"),
    ],
)
def test_what_another_tool_made_is_refused_before_the_first_byte(head: bytes, kind: str) -> None:
    with pytest.raises(StepError, match=f"golden is {kind}, and no image of a disk.*Nothing was written"):
        refuse_unfit("golden", head, len(head), DISK, root=None, grow=True)


def test_a_file_system_without_a_table_is_no_foreign_file() -> None:
    refuse_unfit("golden", bytes(4096), 4096, DISK, root=None, grow=True)


@pytest.mark.parametrize(("table", "tells"), [("gpt", True), ("dos", False), ("", True)])
def test_a_first_look_shows_a_gpt_but_not_the_sectors_of_an_mbr(tmp_path: Path, table: str, tells: bool) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    if table:
        script = f"label: {table}\n,16M\n,16M\n"
        subprocess.run(["sfdisk", image], input=script, text=True, check=True, capture_output=True)
    assert shows_table(image.read_bytes()[:FIRST_LOOK_BYTES], 64 << 20) is tells
