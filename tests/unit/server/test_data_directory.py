import json
import os
import stat
from pathlib import Path

import pytest
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_server.data_directory import LAYOUT, LAYOUT_FILE, LOCK_FILE, open_data_directory


def test_a_new_directory_is_private_and_says_its_layout(tmp_path: Path) -> None:
    with open_data_directory(tmp_path / "a" / "data") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert json.loads((path / LAYOUT_FILE).read_text()) == {"layout": LAYOUT}
        assert (path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_a_directory_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    held = rf"another fleetcast-server \(process {os.getpid()}\)"
    with open_data_directory(tmp_path), pytest.raises(FailedPreconditionError, match=held):
        open_data_directory(tmp_path).__enter__()
    with open_data_directory(tmp_path):
        pass


def test_a_directory_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    newer = json.dumps({"layout": LAYOUT + 1})
    (tmp_path / LAYOUT_FILE).write_text(newer)
    with pytest.raises(FailedPreconditionError, match="newer version of fleetcast"):
        open_data_directory(tmp_path).__enter__()
    assert (tmp_path / LAYOUT_FILE).read_text() == newer


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layout": "x"}'])
def test_a_damaged_layout_file_says_how_to_mend_it(tmp_path: Path, content: str) -> None:
    (tmp_path / LAYOUT_FILE).write_text(content)
    with pytest.raises(FailedPreconditionError, match="is damaged: restore"):
        open_data_directory(tmp_path).__enter__()


def test_a_file_in_the_place_of_the_directory_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(FailedPreconditionError, match=r"cannot be used: .*; give one that this user may write"):
        open_data_directory(tmp_path / "data").__enter__()
