from __future__ import annotations

import pytest
from fleetcast_sequence import SequenceFileError, Variables, parse
from fleetcast_sequence.ready import ready_sequences


@pytest.mark.parametrize("name", ["bare-metal-linux", "bare-metal-windows", "capture-reference", "refresh-windows"])
def test_a_ready_sequence_is_correct_and_has_its_name(name: str) -> None:
    assert parse(ready_sequences()[name]).name == name


@pytest.mark.parametrize(
    ("serial", "name"),
    [
        ("S1-22", "S1-22"),
        ("5CG1234567890123", "234567890123"),
        ("VMware-42 1c 5f 0a 11 22 33 44-55 66 77 88", "525400aabbcc"),
        ("To be filled by O.E.M.", "525400aabbcc"),
        ("", "525400aabbcc"),
    ],
)
def test_every_machine_gets_a_name_that_its_system_takes(serial: str, name: str) -> None:
    machine = {"serial": serial, "mac_addresses": ["52:54:00:aa:bb:cc"]}
    for sequence, variable, prefix in (
        ("bare-metal-windows", "computer_name", "PC-"),
        ("refresh-windows", "computer_name", "PC-"),
        ("bare-metal-linux", "host_name", "linux-"),
    ):
        declared = parse(ready_sequences()[sequence]).variables
        found = Variables(declared, {}, context={"machine": machine}).value(variable)
        assert found.startswith(prefix)
        assert found.endswith(name if prefix == "PC-" else name.lower())


def test_a_computed_reference_is_refused() -> None:
    source = ready_sequences()["bare-metal-linux"].replace("image: debian-12", 'image: "{{ host_name }}"')
    with pytest.raises(SequenceFileError, match="write it out"):
        parse(source)


def test_refresh_saves_before_it_erases() -> None:
    text = ready_sequences()["refresh-windows"]
    assert text.index("type: capture-user-state") < text.index("type: format-volume") < text.index("type: apply-")
