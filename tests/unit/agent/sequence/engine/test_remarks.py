"""Which remarks of a run are kept."""

from fleetcast_agent.sequence.engine.records import Remarked
from fleetcast_agent.sequence.engine.remarks import AND_MORE, MAX_LENGTH, MAX_REMARKS, new_remark
from fleetcast_agent.sequence.engine.runlog import printable
from fleetcast_agent.sequence.engine.state import RunState


def said(*sentences: str) -> list[str]:
    """Returns what is kept of what one step says."""
    state = RunState()
    for sentence in sentences:
        if text := new_remark(state, "1", sentence):
            state.apply(Remarked(node="1", text=text))
    return [one.text for one in state.remarks]


def test_a_remark_is_one_line_said_once() -> None:
    assert said("the disk\n  is old", "the disk is old", "  ") == ["the disk is old"]


def test_a_remark_that_is_too_long_is_cut_and_shows_it() -> None:
    (text,) = said("x" * 10_000)
    assert len(text) == MAX_LENGTH
    assert text.endswith("…")


def test_too_many_remarks_end_with_where_the_others_are() -> None:
    kept = said(*(f"file {number} is odd" for number in range(500)))
    assert len(kept) == MAX_REMARKS
    assert kept[-2:] == [f"file {MAX_REMARKS - 2} is odd", AND_MORE]


def test_what_is_no_text_is_shown_escaped() -> None:
    assert printable("home/latin-\udcfc/größe") == r"home/latin-\xfc/größe"
    assert printable("half \ud83d of a character") == r"half \ud83d of a character"
