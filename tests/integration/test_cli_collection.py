from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.cli_site import Cli, open_cli
from tests.integration.scheduler_actors import FakeMachine, FakeSender

BAD_INPUT, NOT_FOUND, REFUSED = 2, 3, 6


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with open_cli(tmp_path) as opened:
        yield opened


async def test_a_collection_has_machines_by_name_and_by_rule(cli: Cli) -> None:
    for number in (1, 2, 3):
        await cli.register(number)
    flags = ("--rule", "machine.memory_bytes >= 3221225472", "--variable", "edition=pro", "--description", "Room 5")
    made = await cli.json("collection", "create", "lab", *flags, "--protected")
    assert (made["name"], made["variables"], made["protected"]) == ("collections/lab", {"edition": "pro"}, True)
    assert [machine["name"] for machine in made["members"]] == ["machines/m3"]
    assert "2 machines in it now" in await cli.text("collection", "add", "lab", "pc-1")
    shown = await cli.text("collection", "show", "lab")
    assert "2, 1 of them by name" in shown
    assert "edition=pro" in shown
    assert [line.split()[0] for line in shown.splitlines() if " pc-" in line] == ["m1", "m3"]
    removed = await cli.json("collection", "remove", "lab", "pc-1", "m3")
    assert [machine["name"] for machine in removed["members"]] == ["machines/m3"]
    assert "lab" in await cli.text("collection", "list")
    assert "its machines stay" in await cli.text("collection", "delete", "lab")
    assert await cli.json("collection", "list") == {"collections": []}


async def test_a_collection_is_changed_field_by_field(cli: Cli) -> None:
    await cli.text("collection", "create", "lab", "--variable", "a=1", "--variable", "b=2", "--rule", "true")
    flags = ("--unset", "a", "--variable", "c=3", "--rule", "", "--description", "Lab")
    changed = await cli.json("collection", "set", "lab", *flags)
    assert (changed["variables"], changed["rule"], changed["description"]) == ({"b": "2", "c": "3"}, "", "Lab")
    assert not (await cli.json("collection", "set", "lab", "--not-protected"))["protected"]
    assert "nothing to change" in await cli.refused(BAD_INPUT, "collection", "set", "lab")


async def test_what_cannot_be_is_refused_in_one_line(cli: Cli) -> None:
    await cli.text("collection", "create", "lab")
    assert "already" in await cli.refused(REFUSED, "collection", "create", "lab")
    assert "'1 +'" in await cli.refused(BAD_INPUT, "collection", "create", "x", "--rule", "1 +")
    assert "'a b'" in await cli.refused(BAD_INPUT, "collection", "create", "a b")
    assert "'ghost'" in await cli.refused(NOT_FOUND, "collection", "add", "lab", "ghost")
    for arguments in (("show", "x"), ("delete", "x"), ("set", "x", "--rule", "true")):
        assert "no collection x" in await cli.refused(NOT_FOUND, "collection", *arguments)


async def test_senders_are_listed_shown_drained_and_resumed(cli: Cli) -> None:
    assert "no senders" in await cli.text("sender", "list")
    sender = FakeSender(cli.site, site="north", max_concurrent=4)
    await sender.connect()
    machine = FakeMachine(cli.site, "m1")
    await machine.join(image="images/win11")
    session = (await machine.hear("assignment")).session.removeprefix("sessions/")
    row = (await cli.text("sender", "list")).splitlines()[2]
    assert row.split()[:7] == ["a", "ready", "sender-a:7444", "north", "1", "of", "4"]
    assert session in await cli.text("sender", "show", "a")
    assert await cli.text("sender", "drain", "a") == "sender a is draining; 1 transmission goes on\n"
    assert (await cli.json("sender", "resume", "senders/a"))["draining"] is False
    await sender.disconnect()
    assert "lost" in await cli.text("sender", "show", "a")
    assert "no sender z" in await cli.refused(NOT_FOUND, "sender", "show", "z")


async def test_the_record_says_who_did_what_and_when(cli: Cli) -> None:
    assert await cli.text("audit", "list") == "nothing was recorded yet\n"
    await cli.text("collection", "create", "lab", "--rule", "true")
    await cli.text("collection", "create", "x")
    await cli.text("collection", "delete", "x")
    entries = (await cli.json("audit", "list"))["audit_entries"]
    assert [entry["action"] for entry in entries] == ["collection.delete", "collection.create", "collection.create"]
    assert {entry["caller"] for entry in entries} == {"administrators/ada"}
    assert entries[2]["detail"] == {"rule": "true"}
    line = (await cli.text("audit", "list", "--resource", "collections/lab")).splitlines()[2]
    for part in ("administrators/ada", "collection.create", "collections/lab rule true"):
        assert part in line
    assert len((await cli.json("audit", "list", "--since", "1m ago"))["audit_entries"]) == 3
    assert await cli.json("audit", "list", "--since", "now") == {"audit_entries": []}
    assert await cli.text("audit", "list", "--caller", "administrators/bob") == "no such entries\n"
    newest = await cli.run("audit", "list", "--limit", "1")
    assert newest.out.count("collection.") == 1
    assert "newest 1" in newest.err
    assert "'long ago'" in await cli.refused(BAD_INPUT, "audit", "list", "--since", "long ago")


async def test_the_record_says_what_was_changed_to_what(cli: Cli) -> None:
    await cli.text("collection", "create", "lab", "--rule", "true", "--variable", "password=secret")
    window = ("--maintenance-window", "2026-12-01 22:00 8h daily")
    await cli.text("collection", "set", "lab", "--rule", "", "--protected", "--variable", "pin=1234", *window)
    session = (await cli.json("session", "create", "--image", "win11", "--min-clients", "30"))["name"]
    await cli.text("session", "update", session, "--min-clients", "20", "--until", "2030-12-01 02:00Z")
    await cli.text("session", "update", session, "--until", "none", "--max-rate", "200M")
    entries = (await cli.json("audit", "list"))["audit_entries"]
    details = [entry["detail"] for entry in entries if entry["action"].endswith(".update")]
    assert details == [
        {"admission.until_time": "none", "rate.ceiling_bits_per_second": "200000000"},
        {"admission.until_time": "2030-12-01T02:00:00Z", "start_rules.min_clients": "20"},
        {
            "rule": "none",
            "protected": "True",
            "variables": "password pin",
            "maintenance_windows": "(2026-12-01 22:00, 28800 s, FREQ=DAILY)",
        },
    ]
