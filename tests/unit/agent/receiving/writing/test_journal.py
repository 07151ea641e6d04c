from pathlib import Path

import numpy as np
import pytest
from fleetcast_agent.receiving.errors import JournalError
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable
from fleetcast_agent.receiving.writing.journal import Journal, prove_claims
from fleetcast_agent.receiving.writing.target import Target
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent.receiving.transmitting import make_image

IMAGE = "images/office@sha256:aa"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def test_claims_survive_a_process_that_never_closed(tmp_path: Path, target: Path) -> None:
    journal = Journal(tmp_path / "journals", target)
    journal.begin(IMAGE, 65536, [3])
    for chunks in ({1}, {9, 1}, set[int]()):
        journal.note(chunks)
    again = Journal(tmp_path / "journals", target)
    assert again.image == IMAGE
    assert again.claims(IMAGE, 65536) == [1, 3, 9]


def test_claims_count_for_other_versions_of_the_image_but_not_for_other_images(tmp_path: Path, target: Path) -> None:
    Journal(tmp_path, target).begin(IMAGE, 65536, [3])
    journal = Journal(tmp_path, target)
    assert journal.claims("images/office@sha256:bb", 65536) == [3]
    assert journal.claims("images/school@sha256:aa", 65536) == []
    assert journal.claims(IMAGE, 4096) == []


def test_each_target_has_its_own_journal_however_it_is_spelt(tmp_path: Path, target: Path) -> None:
    Journal(tmp_path, target).begin(IMAGE, 65536, [3])
    assert Journal(tmp_path, tmp_path / "other").claims(IMAGE, 65536) == []
    assert Journal(tmp_path, tmp_path / "x" / ".." / "disk").claims(IMAGE, 65536) == [3]


def test_a_torn_entry_is_ignored(tmp_path: Path, target: Path) -> None:
    journal = Journal(tmp_path, target)
    journal.begin(IMAGE, 65536, [3, 4])
    journal.close()
    (file,) = tmp_path.glob("*.journal")
    file.write_bytes(file.read_bytes()[:-1])
    assert Journal(tmp_path, target).claims(IMAGE, 65536) == [3]


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "journals").write_text("")
    with pytest.raises(JournalError, match="--state-dir"):
        Journal(tmp_path / "journals", target)


@given(st.binary(max_size=300))
def test_no_journal_is_too_broken_to_be_opened(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("journals")
    journal = Journal(directory, directory / "disk")
    journal.begin(IMAGE, 65536, [])
    journal.close()
    (file,) = directory.glob("*.journal")
    file.write_bytes(content)
    assert isinstance(Journal(directory, directory / "disk").claims(IMAGE, 65536), list)


def test_only_claims_that_the_target_bears_out_are_held(tmp_path: Path) -> None:
    image = make_image(5, 500_000)
    table = ChunkTable(image.manifest, image.sizes, image.zstd)
    wanted = np.flatnonzero(~image.manifest.zero).tolist()
    content = bytearray(image.content)
    content[wanted[1] * 65536 + 100] ^= 1
    (tmp_path / "disk").write_bytes(content[:-10])
    target = Target(tmp_path / "disk")
    claims = [*range(image.manifest.chunk_count), 100_000]
    held = prove_claims(claims, table, target)
    target.close()
    expected = [chunk for chunk in wanted if chunk not in (wanted[1], image.manifest.chunk_count - 1)]
    assert np.flatnonzero(held).tolist() == expected
