from __future__ import annotations

from pathlib import Path

import pytest
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.machine.disks import Disks


def disk(path: Path, size_bytes: int = 4096) -> Path:
    path.write_bytes(bytes(size_bytes))
    return path


def test_a_file_stands_for_the_machines_disk(tmp_path: Path) -> None:
    found = Disks([disk(tmp_path / "disk")]).find("system")
    assert (found.size_bytes, found.sector_bytes, found.is_device) == (4096, 512, False)


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="neither a block device nor a file"):
        Disks([tmp_path]).find("system")
    with pytest.raises(StepError, match="there is no disk"):
        Disks().find("/dev/no-such-disk")
    with pytest.raises(StepError, match="have the serial number 'XYZ'"):
        Disks().find("serial:XYZ")


def test_a_protected_disk_is_protected_by_every_name(tmp_path: Path) -> None:
    path = disk(tmp_path / "disk")
    (tmp_path / "other-name").symlink_to(path)
    with pytest.raises(StepError, match="is protected"):
        Disks([tmp_path / "other-name"], protected=[path]).erasable("system")
    with pytest.raises(StepError, match="is protected"):
        Disks([path]).erasable("system", protect=[str(tmp_path / "other-name")])


def test_the_disk_that_runs_the_system_is_never_erasable() -> None:
    mounted = next(
        (Path(line.split()[0]) for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("/dev/")),
        None,
    )
    if mounted is None or not mounted.is_block_device():
        pytest.skip("nothing is mounted from a block device here")
    with pytest.raises(StepError, match="in use"):
        Disks().erasable(str(mounted))


def test_a_machine_whose_disk_was_named_has_no_other(tmp_path: Path) -> None:
    disks = Disks([disk(tmp_path / "disk")])
    assert [each.path for each in disks.all()] == [tmp_path / "disk"]
    with pytest.raises(StepError, match="none of the disks that the agent was told to use"):
        disks.find(str(disk(tmp_path / "other")))
