import os
import stat
from pathlib import Path

import pytest
from fleetcast_kit.files import make_private_directory, write_atomically


def test_a_file_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    write_atomically(tmp_path / "key.pem", b"secret")
    assert (tmp_path / "key.pem").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    write_atomically(tmp_path / "key.pem", b"public", mode=0o644)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_directory_is_made_with_its_parents_and_kept_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    make_private_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory.chmod(0o750)
    make_private_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
