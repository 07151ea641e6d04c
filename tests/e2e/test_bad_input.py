import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import MIB, DiskImage
from tests.support.installation import BIN, Installation, Machine

pytestmark = pytest.mark.e2e

BAD_INPUT, NOT_FOUND, UNREACHABLE, NOT_ALLOWED, REFUSED, DAMAGED = 2, 3, 4, 5, 6, 7


def one_line(ended: "subprocess.CompletedProcess[str]", code: int | None = None) -> str:
    """Returns the single line that a failed command said; checks that it said nothing else."""
    assert ended.returncode == code if code is not None else ended.returncode != 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def last_line(ended: "subprocess.CompletedProcess[str]") -> str:
    """Returns the line with which a command failed that had begun its work."""
    assert ended.returncode != 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def agent(installation: Installation, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [BIN / "fleetcast-agent", *arguments],
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def receive(
    installation: Installation, machine: Machine, output: Path, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return agent(
        installation,
        *("receive", *arguments, "--output", str(output), "--state-dir", str(machine.state_directory)),
    )


def stored_bytes(installation: Installation) -> int:
    """Returns what all files below the data directory weigh, databases apart."""
    return sum(
        file.stat().st_size
        for file in installation.catalog_directory.rglob("*")
        if file.is_file() and ".db" not in file.name
    )


def test_a_file_that_cannot_be_an_image_is_refused_before_a_server_is_needed(
    stopped_installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    for file, complaint in [
        (tmp_path / "missing.img", "does not exist"),
        (tmp_path / "empty", "is empty"),
        (tmp_path, "is a directory"),
        (Path(os.devnull), "neither a file nor a block device"),
    ]:
        line = one_line(stopped_installation.run("image", "import", str(file), "--name", "x"), BAD_INPUT)
        assert str(file) in line
        assert complaint in line
    assert "standard input is empty" in one_line(
        stopped_installation.run("image", "import", "-", "--name", "x", stdin=b""), BAD_INPUT
    )
    assert "'.hidden'" in one_line(
        stopped_installation.run("image", "import", str(tmp_path / "empty"), "--name", ".hidden"), BAD_INPUT
    )


def test_a_truncated_or_corrupt_file_leaves_nothing(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    disk = make_disk_image(6)
    before = stored_bytes(installation)
    qcow2 = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk.file, qcow2], check=True)
    (tmp_path / "cut.qcow2").write_bytes(qcow2.read_bytes()[: 2 * MIB])
    subprocess.run(["gzip", "-1", "-k", disk.file], check=True)
    packed = Path(f"{disk.file}.gz")
    (tmp_path / "cut.img.gz").write_bytes(packed.read_bytes()[:-MIB])
    broken = bytearray(packed.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    (tmp_path / "broken.img.gz").write_bytes(broken)
    wim = tmp_path / "some.wim"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(disk.content[:MIB])
    subprocess.run(["wimlib-imagex", "capture", tmp_path / "tree", wim, "--quiet"], check=True, capture_output=True)
    (tmp_path / "cut.wim").write_bytes(wim.read_bytes()[:-1000])
    for name in ("cut.qcow2", "cut.img.gz", "broken.img.gz", "cut.wim"):
        line = one_line(installation.run("image", "import", str(tmp_path / name), "--name", "x"))
        assert name in line
    assert installation.fleetcast("image", "list") == {"images": []}
    assert stored_bytes(installation) - before < MIB


def test_what_does_not_exist_is_named(installation: Installation, make_disk_image: Callable[..., DiskImage]) -> None:
    installation.fleetcast("image", "import", str(make_disk_image(3).file), "--name", "disk")
    for arguments in (
        ("image", "show", "nonesuch"),
        ("image", "verify", "nonesuch"),
        ("image", "delete", "nonesuch"),
        ("session", "create", "--image", "nonesuch"),
        ("image", "show", "disk@sha256:" + "0" * 64),
        ("image", "show", "disk@sha256:0000"),
        ("session", "create", "--image", "disk@sha256:" + "0" * 64),
        ("session", "show", "nonesuch"),
        ("session", "watch", "nonesuch"),
        ("session", "start", "nonesuch"),
        ("session", "cancel", "nonesuch"),
        ("enrolment-token", "revoke", "nonesuch"),
    ):
        line = one_line(installation.run(*arguments), NOT_FOUND)
        assert "nonesuch" in line or "disk" in line
        assert "0000" in line or "nonesuch" in line
    missing = one_line(installation.run("image", "import", "/no/such/file", "--name", "x", "--server-path"))
    assert "/no/such/file" in missing


def test_a_server_that_is_not_there_or_not_the_right_one_is_one_line(
    installation: Installation, tmp_path: Path
) -> None:
    unused = "127.0.0.1:1"
    assert unused in one_line(installation.run("--server", unused, "image", "list"), UNREACHABLE)
    assert "HOST:PORT" in one_line(installation.run("--server", "a:b:c", "image", "list"), BAD_INPUT)
    assert "nonesuch.invalid" in one_line(
        installation.run("--server", "nonesuch.invalid:7443", "image", "list"), UNREACHABLE
    )
    empty = tmp_path / "none"
    assert str(empty) in one_line(installation.run("--credentials", str(empty), "image", "list"), NOT_ALLOWED)
    with Installation(tmp_path / "other") as other:
        other.start_server()
        credentials = str(other.data_directory / "administrator")
        line = one_line(installation.run("--credentials", credentials, "image", "list"), NOT_ALLOWED)
        assert installation.address in line


def test_a_token_that_is_used_up_expired_revoked_or_for_another_server_is_one_line(
    installation: Installation, tmp_path: Path
) -> None:
    def enrol(token: str, name: str) -> "subprocess.CompletedProcess[str]":
        state = tmp_path / name
        return agent(
            installation,
            *("enrol", "--server", installation.address, "--token", token, "--state-dir", str(state)),
        )

    once = installation.fleetcast("enrolment-token", "create")
    assert enrol(once["token"], "first").returncode == 0
    assert "used" in one_line(enrol(once["token"], "second"))
    expired = installation.fleetcast("enrolment-token", "create", "--expires", "1s")
    revoked = installation.fleetcast("enrolment-token", "create")
    installation.fleetcast("enrolment-token", "revoke", revoked["enrolment_token"]["name"])
    assert "revoked" in one_line(enrol(revoked["token"], "third"))
    states = {token["name"]: token for token in installation.fleetcast("enrolment-token", "list")["enrolment_tokens"]}
    assert states[revoked["enrolment_token"]["name"]]["revoke_time"]
    assert "expired" in one_line(enrol(expired["token"], "fourth"))
    with Installation(tmp_path / "other") as other:
        other.start_server()
        foreign = other.fleetcast("enrolment-token", "create")["token"]
        assert "another server" in one_line(enrol(foreign, "fifth"))
    assert "token" in one_line(enrol("rubbish", "sixth"), BAD_INPUT)


def test_a_target_that_cannot_take_the_image_is_one_line_and_stays_as_it_was(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    installation.fleetcast("image", "import", str(make_disk_image(3).file), "--name", "disk")
    (machine,) = installation.enrol(["pc"])
    line = one_line(receive(installation, machine, tmp_path, "--image", "disk"))
    assert "is a directory" in line
    nowhere = tmp_path / "missing" / "disk.img"
    line = one_line(receive(installation, machine, nowhere, "--image", "disk"))
    assert str(nowhere.parent) in line
    assert not nowhere.parent.exists()
    line = one_line(receive(installation, machine, tmp_path / "out.img", "--image", "nonesuch"))
    assert "nonesuch" in line
    assert not (tmp_path / "out.img").exists()
    line = one_line(receive(installation, machine, tmp_path / "out.img", "--image", "disk@sha256:" + "0" * 64))
    assert "0000" in line
    assert not (tmp_path / "out.img").exists()
    line = one_line(
        receive(installation, machine, tmp_path / "out.img", "--image", "disk", "--multicast-interface", "nonesuch0")
    )
    assert "nonesuch0" in line


@pytest.mark.lab
def test_a_medium_too_small_or_read_only_is_one_line(
    installation: Installation, make_disk_image: Callable[..., DiskImage], tmp_path: Path
) -> None:
    installation.fleetcast("image", "import", str(make_disk_image(9).file), "--name", "disk")
    (machine,) = installation.enrol(["pc"])
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        line = last_line(receive(installation, machine, small / "disk.img", "--image", "disk"))
        assert "small" in line or "space" in line
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        line = last_line(receive(installation, machine, small / "other.img", "--image", "disk"))
        assert "read-only" in line.lower()
    finally:
        subprocess.run(["umount", small], check=True)
