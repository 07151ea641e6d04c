from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from fleetcast_agent.sequence.content import unpacking
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.names import refuse_if_impossible


def of_windows(names: dict[str, bytes]) -> bytes:
    """Returns a ZIP archive with separators as Windows PowerShell 5.1 writes them."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, 0
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def unpack(content: bytes, directory: Path) -> dict[str, bytes]:
    """Returns the files of an archive by their paths."""
    path, target = directory / "archive", directory / "unpacked"
    path.write_bytes(content)
    assert unpacking.is_archive(unpacking.kind_of(path))
    list(unpacking.unpacked(path, target))
    return {file.relative_to(target).as_posix(): file.read_bytes() for file in target.rglob("*") if file.is_file()}


def test_separators_of_windows_make_directories(tmp_path: Path) -> None:
    content = of_windows({"net\\": b"", "net\\e1d\\E1D.INF": b"[Version]", "net\\e1d\\e1d.sys": b"MZ"})
    assert unpack(content, tmp_path) == {"net/e1d/E1D.INF": b"[Version]", "net/e1d/e1d.sys": b"MZ"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_of_zip_files_that_python_knows_is_unpacked(tmp_path: Path, method: int) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive, archive.open("a/b", "w", force_zip64=True) as file:
        file.write(b"text" * 1000)
    assert unpack(content.getvalue(), tmp_path) == {"a/b": b"text" * 1000}


def altered(content: bytes, at: int, value: int, *, magic: bytes) -> bytes:
    """Returns a ZIP archive with two bytes of each header of the kind `magic` changed."""
    changed = bytearray(content)
    place = changed.find(magic)
    while place >= 0:
        changed[place + at : place + at + 2] = value.to_bytes(2, "little")
        place = changed.find(magic, place + 4)
    return bytes(changed)


PLAIN = of_windows({"a.inf": b"text" * 5000})
ENCRYPTED = altered(altered(PLAIN, 6, 1, magic=b"PK\x03\x04"), 8, 1, magic=b"PK\x01\x02")
DEFLATE64 = altered(altered(PLAIN, 8, 9, magic=b"PK\x03\x04"), 10, 9, magic=b"PK\x01\x02")
WRONG_SUM = altered(altered(PLAIN, 14, 7, magic=b"PK\x03\x04"), 16, 7, magic=b"PK\x01\x02")
DEVICE, LINK = tarfile.TarInfo("null"), tarfile.TarInfo("link")
DEVICE.type, LINK.type, LINK.linkname = tarfile.CHRTYPE, tarfile.SYMTYPE, "../../etc/passwd"
TAR = tarred((tarfile.TarInfo("a"), b"x" * 5000), (tarfile.TarInfo("b"), b"y" * 5000))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ENCRYPTED, "'a.inf' in it is encrypted with a password: pack it without one"),
        (DEFLATE64, "'a.inf' in it is packed by Deflate64"),
        (WRONG_SUM, "it is damaged: Bad CRC-32 for file 'a.inf'"),
        (PLAIN[: len(PLAIN) // 2], "a ZIP archive whose end is missing"),
        (of_windows({"..\\a": b""}), "'../a' in it leads outside of the package"),
        (of_windows({"C:\\Windows\\a": b""}), "'C:/Windows/a' in it leads outside of the package"),
        (of_windows({"/a": b""}), "'/a' in it leads outside of the package"),
        (of_windows({"a\\b": b"1", "a/b": b"2"}), "'a/b' is in it twice"),
        (tarred((tarfile.TarInfo("../a"), b"")), "'../a' in it leads outside of the package"),
        (tarred((DEVICE, b"")), "'null' in it is a device or a pipe"),
        (tarred((LINK, b"")), "'link' in it leads outside of the package"),
        (TAR[:3000], "it is damaged: unexpected end of data"),
        (TAR[: 512 + 5120], "its end is missing"),
        (gzip.compress(TAR)[:-30], "it is (damaged|a compressed file that is damaged)"),
        (b"\x1f\x8bdamaged", "it is a compressed file that is damaged"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_says_why_in_one_sentence(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(StepError, match=reason) as raised:
        unpack(content, tmp_path)
    assert "\n" not in raised.value.message
    assert str(tmp_path) not in raised.value.message


def test_an_archive_that_unpacks_to_more_than_there_is_room_for_is_not_unpacked(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    huge = tarfile.TarInfo("huge")
    huge.size = 2 * free_bytes
    content = huge.tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    with pytest.raises(StepError, match=r"it would unpack to more than .*, and there is room for"):
        unpack(content, tmp_path)
    assert not (tmp_path / "unpacked/huge").exists()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"MZ" + bytes(100) + PLAIN, "a Windows program (EXE)"),
        (b"MSCF" + bytes(100), "a cabinet"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Windows Installer package (MSI)"),
        (b"  <!DOCTYPE html><html>", "a page of HTML, as a web server sends"),
        (gzip.compress(b"no tar"), ""),
        (b"", ""),
    ],
)
def test_files_are_known_by_how_they_begin(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "file").write_bytes(content)
    assert unpacking.kind_of(tmp_path / "file").startswith(kind)


@pytest.mark.parametrize(
    ("names", "filesystem", "reason"),
    [
        (["Net/Driver.inf", "net/driver.INF"], "ntfs", "'Net/Driver.inf' and 'net/driver.INF' differ only in case"),
        (["a/ä", "a/Ä"], "vfat", "differ only in case"),
        (["a/con.txt"], "ntfs", "'con.txt' is the name of a device in Windows"),
        (["Lpt1"], "exfat", "the name of a device"),
        (["a./b"], "ntfs", "ends with a dot or a space"),
        (["a /b"], "ntfs", "ends with a dot or a space"),
        (["a:b"], "ntfs", "Windows allows no ':' in a name"),
        (["a\\b"], "ntfs", "Windows allows no"),
        (["latin-\udcfc"], "ntfs", "its name is no correct text"),
        (["a\nb"], "ntfs", "Windows allows no"),
        (["a" * 256], "ntfs", "at most 255 characters"),
        (["ä" * 128], "ext4", "longer than 255 bytes"),
    ],
)
def test_names_that_the_target_cannot_hold_are_refused_by_name(names: list[str], filesystem: str, reason: str) -> None:
    with pytest.raises(StepError, match=reason):
        refuse_if_impossible(dict.fromkeys(names, 0), filesystem)


def test_a_file_of_4_gib_does_not_go_onto_fat() -> None:
    refuse_if_impossible({"a": (1 << 32) - 1}, "vfat")
    with pytest.raises(StepError, match="which FAT cannot hold"):
        refuse_if_impossible({"a": 1 << 32}, "vfat")


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_linux_takes_what_windows_does_not(filesystem: str) -> None:
    refuse_if_impossible(dict.fromkeys(["a", "A", "con", "a:b", "end.", "ä" * 127], 0), filesystem)


def test_names_that_only_look_alike_go_onto_ntfs() -> None:
    refuse_if_impossible(dict.fromkeys(["straße", "strasse", "console", "com10", ".profile"], 0), "ntfs")
