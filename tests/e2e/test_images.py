import gzip
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import MIB, DiskImage
from tests.support.installation import BIN, Installation, wait_until

pytestmark = pytest.mark.e2e


def test_a_raw_image_goes_in_by_upload_by_pipe_and_by_server_path_and_is_one_version(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    disk = make_disk_image(9)
    uploaded = installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    assert uploaded["state"] == "ready"
    assert uploaded["format"] == "raw"
    assert (uploaded["size_bytes"], uploaded["zero_chunk_count"]) == (len(disk.content), 3)
    assert uploaded["added_bytes"] == uploaded["stored_bytes"] >= disk.noise_bytes
    again = installation.fleetcast("image", "import", str(disk.file), "--name", "copy", "--server-path")
    assert again["digest"] == uploaded["digest"]
    assert again["added_bytes"] == 0
    piped = installation.run("image", "import", "-", "--name", "piped", stdin=disk.content)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.startswith(f"piped@{uploaded['digest']}\n")
    images = installation.fleetcast("image", "list")["images"]
    assert {image["image"] for image in images} == {"disk", "copy", "piped"}


def test_virtual_disks_and_compressed_files_are_found_out_by_their_content(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(6)
    disguised = tmp_path / "notes.txt"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk.file, disguised], check=True)
    virtual = installation.fleetcast("image", "import", str(disguised), "--name", "virtual")
    assert virtual["format"] == "qcow2"
    assert virtual["size_bytes"] >= len(disk.content)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(disk.content, 1))
    unpacked = installation.fleetcast("image", "import", str(packed), "--name", "packed")
    assert (unpacked["format"], unpacked["size_bytes"]) == ("raw", len(disk.content))


def test_a_name_that_is_not_utf8_and_a_terminal_that_is_not_either_are_survived(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9 \x1b[2J.img")
    file.write_bytes(make_disk_image(2).content)
    imported = installation.fleetcast("image", "import", str(file), "--name", "disk")
    assert imported["source_file"] == "caf\\xe9 \\x1b[2J.img"
    for locale in ("C", "C.UTF-8", "POSIX"):
        environment = installation.environment | {"LC_ALL": locale, "PYTHONIOENCODING": "", "PYTHONUTF8": "0"}
        command: list[str | Path] = [BIN / "fleetcast", "image", "show", "disk"]
        shown = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert b"caf\\xe9 \\x1b[2J.img" in shown.stdout
        missing: list[str | Path] = [
            BIN / "fleetcast",
            "image",
            "import",
            str(tmp_path / os.fsdecode(b"\xff\x1b")),
            "--name",
            "a",
        ]
        ended = subprocess.run(missing, env=environment, capture_output=True, check=False)
        assert ended.returncode == 2
        assert b"does not exist" in ended.stderr
        assert b"Traceback" not in ended.stderr
        assert b"\x1b" not in ended.stderr
        refused: list[bytes | str | Path] = [
            BIN / "fleetcast",
            "image",
            "import",
            b"/caf\xe9",
            "--name",
            "a",
            "--server-path",
        ]
        ended = subprocess.run(refused, env=environment, capture_output=True, check=False)
        assert b"bytes that are not UTF-8" in ended.stderr


def test_a_file_in_pieces_goes_in_by_its_first(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(3)
    (tmp_path / "pieces").mkdir()
    for index, start in enumerate(range(0, len(disk.content), MIB)):
        (tmp_path / "pieces" / f"disk.img.{index:03}").write_bytes(disk.content[start : start + MIB])
    whole = installation.fleetcast("image", "import", str(disk.file), "--name", "whole")
    first = installation.fleetcast("image", "import", str(tmp_path / "pieces" / "disk.img.000"), "--name", "first")
    every = installation.fleetcast("image", "import", str(tmp_path / "pieces"), "--name", "every")
    assert whole["digest"] == first["digest"] == every["digest"]
    (tmp_path / "pieces" / "disk.img.001").unlink()
    ended = installation.run("image", "import", str(tmp_path / "pieces"), "--name", "bad")
    assert "the piece disk.img.001 is missing" in ended.stderr


def test_a_wim_shows_the_images_inside(installation: Installation, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "Ordner").mkdir(parents=True)
    (tree / "Ordner" / "Grüße.txt").write_text("hallo")
    wim = tmp_path / "some.wim"
    subprocess.run(["wimlib-imagex", "capture", tree, wim, "First", "One", "--quiet"], check=True, capture_output=True)
    subprocess.run(["wimlib-imagex", "append", tree, wim, "Second", "--quiet"], check=True, capture_output=True)
    imported = installation.fleetcast("image", "import", str(wim), "--name", "win")
    assert imported["format"] == "wim"
    assert [inside["display_name"] for inside in imported["wim_images"]] == ["First", "Second"]
    shown = installation.run("image", "show", "win")
    assert "First" in shown.stdout
    assert "Second" in shown.stdout


def test_an_image_is_listed_shown_verified_and_deleted_by_its_short_digest(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    imported = installation.fleetcast("image", "import", str(make_disk_image(3).file), "--name", "disk")
    short = "disk@" + imported["digest"][: len("sha256:") + 12]
    assert short in installation.run("image", "list").stdout
    assert imported["digest"] in installation.run("image", "show", short).stdout
    verified = installation.run("image", "verify", short)
    assert (verified.returncode, "none damaged" in verified.stdout) == (0, True), verified
    deleted = installation.fleetcast("image", "delete", short)
    assert deleted == {"name": imported["name"], "reclaimed_bytes": imported["stored_bytes"]}
    assert not list(installation.catalog_directory.rglob("*.zst")) + list(installation.catalog_directory.rglob("*.raw"))


def test_verification_finds_a_damaged_chunk_and_the_same_import_repairs_it(
    installation: Installation, make_disk_image: Callable[..., DiskImage]
) -> None:
    disk = make_disk_image(6)
    installation.fleetcast("image", "import", str(disk.file), "--name", "disk")
    chunk = next(iter(sorted(installation.catalog_directory.rglob("*.raw"))))
    broken = bytearray(chunk.read_bytes())
    broken[100] ^= 1
    chunk.write_bytes(broken)
    verified = installation.run("image", "verify", "disk")
    assert verified.returncode == 7
    assert "1 damaged chunk of 7" in verified.stderr
    assert installation.fleetcast("image", "list")["images"][0]["state"] == "failed"
    assert installation.fleetcast("image", "import", str(disk.file), "--name", "disk")["state"] == "ready"
    assert installation.run("image", "verify", "disk").returncode == 0


def start_piped_import(installation: Installation, log: Path) -> "subprocess.Popen[bytes]":
    """Returns an import of standard input, so that the test decides how far it gets."""
    command = [str(BIN / "fleetcast"), "image", "import", "-", "--name", "disk"]
    return installation.start(command, stdin=subprocess.PIPE, stdout=log, stderr=log)


def wait_for_chunks(installation: Installation) -> None:
    wait_until(lambda: bool(list(installation.catalog_directory.rglob("*.raw"))), "a chunk is stored")


def wait_for_no_images(installation: Installation) -> None:
    wait_until(lambda: installation.fleetcast("image", "list") == {"images": []}, "nothing of the import is left")
    assert not list(installation.catalog_directory.rglob("*.raw"))


def test_an_interrupted_import_leaves_nothing_and_can_be_repeated(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(30)
    importing = start_piped_import(installation, tmp_path / "import.log")
    with importing.stdin as pipe:  # type: ignore[union-attr]
        pipe.write(disk.content[: 10 * MIB])
        wait_for_chunks(installation)
        importing.send_signal(signal.SIGINT)
        assert importing.wait(20) == 130
    assert (tmp_path / "import.log").read_text().splitlines()[-1] == "fleetcast: interrupted"
    wait_for_no_images(installation)
    assert installation.fleetcast("image", "import", str(disk.file), "--name", "disk")["state"] == "ready"


def test_a_server_killed_in_the_middle_of_an_import_shows_nothing_of_it_afterwards(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(30)
    importing = start_piped_import(installation, tmp_path / "import.log")
    with importing.stdin as pipe:  # type: ignore[union-attr]
        pipe.write(disk.content[: 10 * MIB])
        wait_for_chunks(installation)
        installation.kill_server()
        assert importing.wait(20) == 4, (tmp_path / "import.log").read_text()
    installation.start_server()
    wait_for_no_images(installation)
    assert installation.fleetcast("image", "import", str(disk.file), "--name", "disk")["state"] == "ready"
