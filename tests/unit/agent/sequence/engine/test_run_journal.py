from __future__ import annotations

from pathlib import Path

import pytest
from fleetcast_agent.sequence.engine.records import Record, Started, StepSaved, StepStarted
from fleetcast_agent.sequence.engine.run_journal import RunJournal
from fleetcast_agent.sequence.errors import RunJournalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples

RECORDS: list[Record] = [
    Started(digest="sha256:1"),
    StepStarted(node="1", attempt=1),
    StepSaved(node="1", checkpoint={"text": "ä\u2028\x85 \n {}"}),
]


def write(path: Path) -> bytes:
    path.unlink(missing_ok=True)
    journal = RunJournal(path)
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def read(path: Path) -> list[Record]:
    journal = RunJournal(path)
    try:
        return list(journal.records)
    finally:
        journal.close()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    assert read(tmp_path / "journal") == RECORDS


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(st.integers(min_value=0))
def test_a_power_cut_at_any_byte_loses_at_most_the_record_being_written(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    content = write(path)
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    assert read(path) == RECORDS[:whole]
    journal = RunJournal(path)
    journal.append(RECORDS[0])
    journal.close()
    assert read(path) == [*RECORDS[:whole], RECORDS[0]]


@pytest.mark.parametrize("line", [0, 1])
def test_damage_before_the_end_is_an_error(tmp_path: Path, line: int) -> None:
    path = tmp_path / "journal"
    lines = write(path).splitlines(keepends=True)
    lines[line] = lines[line].replace(b"1", b"2")
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunJournalError, match=f"line {line + 1} is damaged"):
        RunJournal(path)


def test_two_agents_cannot_run_the_same_sequence(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path / "journal")
    with pytest.raises(RunJournalError, match="in use"):
        RunJournal(tmp_path / "journal")
    journal.close()
