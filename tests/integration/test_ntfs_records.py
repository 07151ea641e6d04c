"""The records of NTFS volumes that its own tools made, read without a mount; damaged ones too."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import pytest
from fleetcast_agent.sequence.ntfs.compression import decompress
from fleetcast_agent.sequence.ntfs.file_records import NtfsVolume
from fleetcast_agent.sequence.ntfs.forms import ROOT_RECORD, NtfsError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.sequences import MIB, tool

pytestmark = pytest.mark.skipif(shutil.which("ntfscp") is None, reason="ntfscp is not installed")

GENEROUS = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a volume with a hundred files in its top directory, some with named streams."""
    directory = tmp_path_factory.mktemp("ntfs")
    path, source = directory / "volume", directory / "source"
    with path.open("wb") as file:
        file.truncate(20 * MIB)
    tool("mkntfs", "--force", "--quick", "--quiet", path)
    for number in range(100):
        source.write_bytes(content(number))
        tool("ntfscp", "--quiet", path, source, f"file number {number} with a name that needs some room.txt")
    source.write_bytes(b"a stream")
    tool("ntfscp", "--quiet", "-N", "more", path, source, "file number 3 with a name that needs some room.txt")
    return path


def content(number: int) -> bytes:
    return random.Random(number).randbytes(number * number * 3)


def files_of(path: Path, start_bytes: int = 0) -> dict[str, dict[str, bytes]]:
    """Returns the content of each stream of each file in the top directory."""
    with path.open("rb") as file:
        volume = NtfsVolume(file, start_bytes)
        top = volume.record(ROOT_RECORD)
        assert top is not None
        found = {}
        for name, number in volume.children(top).items():
            record = volume.record(number)
            if record is not None and not name.startswith("$"):
                found[name] = {stream: volume.content(item) for stream, item in record.streams.items()}
        return found


def test_every_stream_of_every_file_is_read(image: Path) -> None:
    found = files_of(image)
    found.pop(".")
    wanted = {
        f"file number {number} with a name that needs some room.txt": {"": content(number)} for number in range(100)
    }
    wanted["file number 3 with a name that needs some room.txt"]["more"] = b"a stream"
    assert found == wanted


def test_a_volume_is_read_from_its_place_on_a_disk(image: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.seek(3 * MIB)
        file.write(image.read_bytes())
    assert files_of(disk, 3 * MIB) == files_of(image)


def test_what_is_no_ntfs_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(4096))
    with pytest.raises(NtfsError, match="there is no NTFS"):
        files_of(tmp_path / "zeros")


@GENEROUS
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_damage_raises_nothing_but_its_own_error(image: Path, chance: random.Random, count: int) -> None:
    damaged = bytearray(image.read_bytes())
    table = int.from_bytes(damaged[48:56], "little") * 4096
    for _ in range(count):
        # Mostly the records themselves; the boot sector and anything else as well.
        place = chance.choice((table, table, table, 0)) + chance.randrange(chance.choice((512, 1 << 17)))
        damaged[place] = chance.randrange(256)
    path = image.with_name("damaged")
    path.write_bytes(damaged)
    with contextlib.suppress(NtfsError), path.open("rb") as file:
        volume = NtfsVolume(file)
        for record in volume.records():
            volume.security_descriptor(record)
            for stream in record.streams.values():
                list(volume.blocks(stream))


@given(st.binary(max_size=300))
@example(b"\x01\x80\x00")
def test_no_compressed_data_raise_anything_but_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(decompress(data, 10_000)) == 10_000
