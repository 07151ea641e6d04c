from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.cli_site import Cli, open_cli

BAD_INPUT, NOT_FOUND, REFUSED = 2, 3, 6


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with open_cli(tmp_path) as opened:
        yield opened


async def test_machines_are_listed_filtered_and_shown_by_any_of_their_names(cli: Cli) -> None:
    assert "no machines" in await cli.text("machine", "list")
    for number in (1, 2):
        await cli.register(number)
    rows = (await cli.text("machine", "list")).splitlines()
    assert rows[0].split() == ["machine", "name", "state", "heard", "model", "memory"]
    assert [row.split()[:3] for row in rows[2:]] == [["m1", "pc-1", "approved"], ["m2", "pc-2", "approved"]]
    found = await cli.json("machine", "list", "--filter", "machine.memory_bytes > 1073741824")
    assert [machine["name"] for machine in found["machines"]] == ["machines/m2"]
    assert await cli.json("machine", "list", "--state", "held") == {"machines": []}
    for name in ("pc-2", "m2", "machines/m2", "AA-BB-CC-00-00-02"):
        assert (await cli.json("machine", "show", name))["inventory"]["serial_number"] == "S2"
    shown = await cli.text("machine", "show", "pc-1")
    assert "aa:bb:cc:00:00:01" in shown
    assert "1 GiB" in shown


async def test_what_names_no_machine_or_several_is_one_line(cli: Cli) -> None:
    await cli.register(1)
    await cli.register(2)
    await cli.text("machine", "set", "m2", "--display-name", "pc-1")
    assert "'pc-1' names 2 machines: give one of the ids m1, m2" in await cli.refused(
        BAD_INPUT, "machine", "show", "pc-1"
    )
    assert "'ghost'" in await cli.refused(NOT_FOUND, "machine", "remove", "m1", "ghost")
    assert len((await cli.json("machine", "list"))["machines"]) == 2
    bad = await cli.refused(BAD_INPUT, "machine", "list", "--filter", "machine.colour == 1")
    assert "colour" in bad


async def test_variables_and_protection_are_set_and_unset(cli: Cli) -> None:
    await cli.register(1)
    changed = await cli.json("machine", "set", "pc-1", "--variable", "room=5", "--variable", "seat=a=b", "--protected")
    assert (changed["variables"], changed["protected"]) == ({"room": "5", "seat": "a=b"}, True)
    changed = await cli.json("machine", "set", "pc-1", "--variable", "room=6", "--unset", "seat", "--not-protected")
    assert (changed["variables"], changed["protected"]) == ({"room": "6"}, False)
    assert "no variable 'seat'" in await cli.refused(BAD_INPUT, "machine", "set", "pc-1", "--unset", "seat")
    assert "nothing to change" in await cli.refused(BAD_INPUT, "machine", "set", "pc-1")
    assert "room=6" in await cli.text("machine", "show", "pc-1")


async def test_an_import_is_all_rows_or_none_and_names_every_bad_one(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "lab.csv"
    file.write_text(
        "display_name,serial_number,mac_addresses,variable:room\n"
        "Left,S1,aa:bb:cc:00:00:01,5\n"
        "Right,S2,nonsense,5\n"
        "Middle,S3,,5\n"
        "Last,S1,aa:bb:cc:00:00:04,5\n"
    )
    ended = await cli.run("machine", "import", str(file))
    assert ended.code == BAD_INPUT
    lines = ended.err.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["line 3", "line 4", "line 5"]
    assert "'nonsense'" in lines[0]
    assert "fewer than two" in lines[1]
    assert "serial_number s1 as line 2" in lines[2]
    assert "3 rows" in lines[-1]
    assert "nothing was imported" in lines[-1]
    assert await cli.json("machine", "list") == {"machines": []}
    file.write_text("\ufeffdisplay_name;serial_number;mac_addresses;collection\nLeft;S1;AA-BB-CC-00-00-01;lab\n\n")
    assert "no collection lab" in await cli.refused(NOT_FOUND, "machine", "import", str(file))
    file.write_text("display_name,serial_number,mac_addresses\nLeft,S1,AABBCC000001\nRight,S2,AABBCC000002\n")
    made = (await cli.json("machine", "import", str(file)))["machines"]
    assert [(machine["state"], machine["inventory"]["mac_addresses"]) for machine in made] == [
        ("expected", ["aa:bb:cc:00:00:01"]),
        ("expected", ["aa:bb:cc:00:00:02"]),
    ]
    file.write_text(file.read_text() + "New,S7,AABBCC000007\n")
    line = await cli.refused(REFUSED, "machine", "import", "-", stdin=file.read_bytes())
    left, right = (machine["name"] for machine in made)
    assert line == (
        f"'Left' has the serial number of {left} (Left); 'Right' has the serial number of {right} (Right): "
        "remove one of each pair first; nothing was imported"
    )
    assert len((await cli.json("machine", "list"))["machines"]) == 2
    registered = await cli.register(1)
    assert registered.display_name == "Left"


async def test_held_machines_are_approved_and_removed_ones_forgotten(cli: Cli) -> None:
    assert "are accepted" in await cli.text("machine", "policy")
    assert "are held" in await cli.text("machine", "policy", "hold")
    await cli.register(1)
    await cli.register(2)
    assert "is not known" in await cli.text("machine", "list", "--state", "held")
    approved = await cli.text("machine", "approve", "pc-1", "m2")
    assert approved.splitlines() == ["approved pc-1 (m1)", "approved pc-2 (m2)"]
    assert "for one machine" in await cli.refused(BAD_INPUT, "machine", "approve", "pc-1", "pc-2", "--as", "m1")
    await cli.register(3, serial_number="S1", mac_addresses=["aa:bb:cc:00:00:01"])
    taken = await cli.json("machine", "approve", "m3", "--as", "m1")
    assert taken["machines"][0]["display_name"] == "pc-1"
    await cli.text("machine", "set", "pc-1", "--variable", "room=5")
    await cli.register(2, serial_number="S9", mac_addresses=["aa:bb:cc:00:00:09"])
    listed = await cli.text("machine", "list")
    assert "registers from other hardware" in listed
    assert "S9 aa:bb:cc:00:00:09" in await cli.text("machine", "show", "m2")
    assert await cli.json("machine", "remove", "pc-1", "pc-2") == {"removed_machines": ["machines/m3", "machines/m2"]}
    assert await cli.json("machine", "list") == {"machines": []}
    await cli.register(4)
    await cli.text("machine", "approve", "m4")
    await cli.text("machine", "set", "m4", "--variable", "room=5")
    removed = await cli.text("machine", "remove", "m4")
    assert removed == "removed pc-4 (m4): the name pc-4, the variables room are lost\n"


async def test_the_policy_for_unknown_machines_names_a_collection_that_exists(cli: Cli) -> None:
    assert "no collection fresh" in await cli.refused(NOT_FOUND, "machine", "policy", "accept", "--collection", "fresh")
    assert "is for accepted machines" in await cli.refused(BAD_INPUT, "machine", "policy", "hold", "--collection", "x")
    assert (await cli.json("machine", "policy", "refuse")) == {
        "action": "refuse",
        "collection": "",
        "imported_action": "accept",
    }
    assert "imported ones are held too" in await cli.text("machine", "policy", "accept", "--imported", "hold")
    assert "--imported refuse" in await cli.refused(BAD_INPUT, "machine", "policy", "hold", "--imported", "refuse")
