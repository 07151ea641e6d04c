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


async def create(cli: Cli, *flags: str) -> str:
    """Returns the id of a new session."""
    name: str = (await cli.json("session", "create", "--image", "win11", *flags))["name"]
    return name.removeprefix("sessions/")


async def test_everything_about_a_session_is_said_at_its_creation_and_echoed(cli: Cli) -> None:
    flags = [
        *("--start-when", "all: clients>=20, at 2030-12-01 02:00", "--late", "next", "--until", "2030-12-01 06:00"),
        *("--at-end", "stop", "--rate", "500M", "--daily-ceiling", "08:00-18:00=200M", "--priority", "5"),
        *("--max-machines", "50", "--slow-policy", "separate:10M", "--site", "north"),
    ]
    made = await cli.json("session", "create", "--image", "win11", *flags)
    assert made["start_rules"]["min_clients"] == 20
    assert made["start_rules"]["match"] == "all"
    assert made["start_rules"]["start_time"] == "2030-12-01T01:00:00Z"
    assert made["admission"] == {
        "until_time": "2030-12-01T05:00:00Z",
        "late_policy": "next_run",
        "end_policy": "stop",
        "max_participants": 50,
    }
    assert made["rate"]["fixed_bits_per_second"] == 500_000_000
    assert made["rate"]["daily_ceilings"][0]["time_zone"] == "Europe/Berlin"
    assert (made["priority"], made["site"]) == (5, "north")
    assert made["slow_policy"] == {"action": "separate", "threshold_bits_per_second": 10_000_000}
    shown = await cli.text("session", "show", made["name"])
    assert "20 machines and at Sun 2030-12-01 02:00 +01:00 Europe/Berlin = 2030-12-01 01:00 UTC, in " in shown
    for part in (
        "06:00 +01:00",
        "wait for the next run",
        "at most 200 Mbit/s 08:00-18:00",
        "+5",
        "north",
        "50 machines",
    ):
        assert part in shown


async def test_old_flags_still_open_a_session(cli: Cli) -> None:
    text = await cli.text("session", "create", "--image", "win11", "--min-clients", "30", "--start-delay", "10m")
    assert "is waiting" in text
    assert "30 machines or 10m after the first" in text
    assert "first machine" in await cli.text("session", "create", "--image", "win11")


async def test_bad_input_is_refused_before_a_session_is_made(cli: Cli) -> None:
    for flags, complaint in [
        (("--start-when", "clients>=3 or manual and quiet 1m"), "mixes 'and' and 'or'"),
        (("--start-when", "manual", "--min-clients", "3"), "--start-when and --min-clients"),
        (("--until", "2020-01-01 00:00"), "is in the past"),
        (("--until", "2030-03-31 02:30"), "does not exist in Europe/Berlin"),
        (("--start-at", "2030-10-27 02:30"), "comes twice in Europe/Berlin"),
        (("--daily-ceiling", "8-18"), "is not a daily ceiling"),
        (("--late", "never"), "never"),
        (("--priority", "200"), "200"),
        (("--slow-policy", "punish"), "punish"),
        (("--repeat", "often"), "'often' is not a recurrence"),
    ]:
        assert complaint in await cli.refused(BAD_INPUT, "session", "create", "--image", "win11", *flags)
    assert await cli.json("session", "list") == {"sessions": []}


async def test_a_session_changes_field_by_field_while_it_waits(cli: Cli) -> None:
    session = await create(cli, "--min-clients", "20", "--until", "+2h", "--priority", "3")
    changed = await cli.json("session", "update", session, "--min-clients", "5", "--until", "none", "--late", "refuse")
    assert changed["start_rules"]["min_clients"] == 5
    assert changed["admission"]["until_time"] is None
    assert (changed["admission"]["late_policy"], changed["priority"]) == ("refuse", 3)
    changed = await cli.json("session", "update", session, "--start-when", "quiet 2m")
    assert (changed["start_rules"]["min_clients"], changed["start_rules"]["quiet_time_seconds"]) == (0, 120)
    assert (await cli.json("session", "set-rate", session, "1G"))["rate"]["fixed_bits_per_second"] == 10**9
    assert (await cli.json("session", "set-rate", session, "auto"))["rate"]["fixed_bits_per_second"] == 0
    assert "nothing to change" in await cli.refused(BAD_INPUT, "session", "update", session)
    assert "'fast' is not a rate" in await cli.refused(BAD_INPUT, "session", "set-rate", session, "fast")


async def test_a_session_is_extended_closed_drained_and_stopped(cli: Cli) -> None:
    session = await create(cli, "--start-at", "2030-12-01 02:00", "--until", "2030-12-01 06:00")
    moved = await cli.json("session", "extend", session, "+30m")
    assert moved["start_rules"]["start_time"] == "2030-12-01T01:30:00Z"
    assert moved["admission"]["until_time"] == "2030-12-01T05:30:00Z"
    assert "06:30 +01:00" in await cli.text("session", "show", session)
    for by in ("0", "soon"):
        assert repr(by) in await cli.refused(BAD_INPUT, "session", "extend", session, by)
    endless = await create(cli)
    assert "no end" in await cli.refused(REFUSED, "session", "extend", endless, "1h")
    assert (await cli.json("session", "close", session))["closed"]
    assert (await cli.json("session", "drain", endless))["closed"]
    third = await create(cli)
    assert "is completed" in await cli.text("session", "stop", third)
    assert "no session x" in await cli.refused(NOT_FOUND, "session", "stop", "x")


async def test_machines_are_kicked_by_any_of_their_names(cli: Cli) -> None:
    await FakeSender(cli.site).connect()
    for number in (1, 2, 3):
        await cli.register(number)
    session = await create(cli, "--manual")
    machines = [FakeMachine(cli.site, f"m{number}") for number in (1, 2)]
    for machine in machines:
        await machine.join(session=f"sessions/{session}", display_name=f"pc-{machine.name[1:]}")
    assert f"'pc-3' in session {session}" in await cli.refused(NOT_FOUND, "session", "kick", session, "m1", "pc-3")
    kicked = await cli.text("session", "kick", session, "pc-1", "AA-BB-CC-00-00-02", "--reason", "wrong room")
    assert kicked.splitlines() == ["pc-1 (m1) is dismissed", "pc-2 (m2) is dismissed"]
    assert (await machines[0].hear("dismissal")).detail == "wrong room"


async def test_a_machine_goes_on_by_unicast_and_one_that_failed_gets_another_chance(cli: Cli) -> None:
    await FakeSender(cli.site).connect()
    session = await create(cli)
    machines = [FakeMachine(cli.site, f"m{number}") for number in (1, 2)]
    for machine in machines:
        await machine.join(session=f"sessions/{session}", display_name=f"pc-{machine.name[1:]}")
        await machine.hear("assignment")
    assert await cli.text("session", "kick", session, "pc-1", "--unicast") == "pc-1 (m1) is receiving, by unicast\n"
    assert await cli.text("session", "retry", session) == "no machine had failed\n"
    await machines[1].finish("the disk is full")
    await machines[1].hear("dismissal")
    (retried,) = (await cli.json("session", "retry", session))["participants"]
    assert (retried["machine"], retried["state"]) == ("machines/m2", "lost")


async def test_a_session_repeats_until_its_series_is_cancelled(cli: Cli) -> None:
    made = await cli.json(
        *("session", "create", "--image", "win11", "--start-at", "2030-12-01 02:00", "--repeat", "weekdays")
    )
    assert (made["recurrence"], made["recurrence_time_zone"]) == ("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "Europe/Berlin")
    shown = await cli.text("session", "show", made["name"])
    assert "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR, Europe/Berlin" in shown
    assert (await cli.json("session", "update", made["name"], "--repeat", "none"))["recurrence"] == ""
    assert "is cancelled" in await cli.text("session", "cancel", made["name"], "--series")
