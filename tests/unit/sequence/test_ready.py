from __future__ import annotations

import pytest
from fleetcast_sequence import SequenceFileError, parse
from fleetcast_sequence.ready import ready_sequences


@pytest.mark.parametrize("name", ["bare-metal-linux", "bare-metal-windows", "capture-reference", "refresh-windows"])
def test_a_ready_sequence_is_correct_and_has_its_name(name: str) -> None:
    assert parse(ready_sequences()[name]).name == name


def test_a_computed_reference_is_refused() -> None:
    source = ready_sequences()["bare-metal-linux"].replace("image: debian-12", 'image: "{{ host_name }}"')
    with pytest.raises(SequenceFileError, match="write it out"):
        parse(source)


def test_refresh_saves_before_it_erases() -> None:
    text = ready_sequences()["refresh-windows"]
    assert text.index("type: capture-user-state") < text.index("type: format-volume") < text.index("type: apply-")
