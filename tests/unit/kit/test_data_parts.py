"""What a data directory has had must not come back empty."""

import json
from pathlib import Path

import pytest
from fleetcast_kit.data_parts import AUTHORITY, CATALOG, PARTS_FILE, SCHEDULER, STORE, DataParts
from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.identity.authority import CertificateAuthority


def test_a_new_directory_must_have_nothing(tmp_path: Path) -> None:
    parts = DataParts(tmp_path)
    assert not any(map(parts.way_out, (AUTHORITY, CATALOG, SCHEDULER, STORE)))
    assert not (tmp_path / PARTS_FILE).exists()


def test_what_was_noted_must_be_there_until_it_is_taken_out_of_the_file(tmp_path: Path) -> None:
    DataParts(tmp_path).note(AUTHORITY, SCHEDULER)
    again = DataParts(tmp_path)
    assert f'take "{SCHEDULER}" out of {tmp_path / PARTS_FILE}' in again.way_out(SCHEDULER)
    assert not again.way_out(CATALOG)
    (tmp_path / PARTS_FILE).write_text(json.dumps({"parts": [AUTHORITY]}))
    assert not DataParts(tmp_path).way_out(SCHEDULER)


def test_in_a_directory_of_an_earlier_version_what_is_there_tells_what_was(tmp_path: Path) -> None:
    (tmp_path / "administrator").mkdir()
    (tmp_path / "administrator" / "server.json").write_text("{}")
    (tmp_path / "store" / "chunks" / "ab").mkdir(parents=True)
    assert all(map(DataParts(tmp_path).way_out, (AUTHORITY, CATALOG, SCHEDULER, STORE)))
    (tmp_path / PARTS_FILE).write_text('{"parts": []}')
    assert not DataParts(tmp_path).way_out(SCHEDULER), "what the file says counts, once there is one"


def test_a_first_start_that_was_killed_may_go_on(tmp_path: Path) -> None:
    CertificateAuthority.open(tmp_path / "authority")
    (tmp_path / "layout.json").write_text("{}")
    parts = DataParts(tmp_path)
    assert not any(map(parts.way_out, (AUTHORITY, CATALOG, SCHEDULER, STORE)))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"parts": 3}'])
def test_a_damaged_list_says_how_to_mend_it(tmp_path: Path, content: str) -> None:
    (tmp_path / PARTS_FILE).write_text(content)
    with pytest.raises(FailedPreconditionError, match="is damaged: write"):
        DataParts(tmp_path)


def test_an_authority_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"is gone.*: restore it from a backup; or, to begin"):
        CertificateAuthority.open(tmp_path / "authority", must_exist="or, to begin without it, say so")
    assert not (tmp_path / "authority").exists()
