"""Which files belong together, and the archive that they are sent in."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from fleetcast_cli.images.archive import archived, files_of
from fleetcast_kit.errors import InvalidArgumentError


def made(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).write_bytes(name.encode())
    return directory


@pytest.mark.parametrize(
    ("first", "others", "strangers"),
    [
        ("d.img.gz.aa", ["d.img.gz.ab", "d.img.gz.ac"], ["d.img.gz", "e.img.gz.ab", "d.img.gz.md5"]),
        ("d1p1.img.000", ["d1p1.img.001"], ["d1p2.img.000"]),
        ("install.swm", ["install2.swm", "install3.swm"], ["boot.swm"]),
        ("INSTALL.SWM", ["INSTALL2.SWM"], []),
    ],
)
def test_the_first_piece_brings_the_others(tmp_path: Path, first: str, others: list[str], strangers: list[str]) -> None:
    made(tmp_path, first, *others, *strangers)
    assert [file.name for file in files_of(tmp_path / first)] == sorted([first, *others])


def test_a_directory_brings_its_files_and_a_file_only_itself(tmp_path: Path) -> None:
    made(tmp_path, "parts", "sda-pt.sf")
    (tmp_path / "sub").mkdir()
    assert [file.name for file in files_of(tmp_path)] == ["parts", "sda-pt.sf"]
    assert files_of(tmp_path / "parts") == []
    assert files_of(tmp_path / "nowhere") == []
    with pytest.raises(InvalidArgumentError, match="is a directory, but not an image of Clonezilla or FOG"):
        files_of(tmp_path / "sub")


def test_the_archive_holds_the_files(tmp_path: Path) -> None:
    with archived(files_of(made(tmp_path, "parts", "disk"))) as archive:
        packed = b""
        while data := os.read(archive.descriptor, 1 << 16):
            packed += data
        archive.check()
    with tarfile.open(fileobj=io.BytesIO(packed)) as unpacked:
        assert unpacked.getnames() == ["disk", "parts"]


def test_a_file_that_cannot_be_read_is_no_whole_archive(tmp_path: Path) -> None:
    with archived([tmp_path / "gone"]) as archive:
        while os.read(archive.descriptor, 1 << 16):
            pass
        with pytest.raises(OSError, match="gone"):
            archive.check()
