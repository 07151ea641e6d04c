"""What people write about machines and collections: names, CSV, variables, maintenance windows."""

import io
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fleetcast_cli.collections.maintenance_windows import format_maintenance_window, parse_maintenance_windows
from fleetcast_cli.machines.inventory_csv import read_machines
from fleetcast_cli.machines.lookup import Known, _filters, choose, mac_address
from fleetcast_cli.shell.instants import Clock
from fleetcast_cli.shell.recurrences import recurrence
from fleetcast_cli.task_sequences.variables import change_variables, parse_variables
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.refusals import takes_or_says_why

KNOWN = [
    Known("machines/a1", "pc-1", ["aa:bb:cc:dd:ee:01"], "K7QF-42X"),
    Known("machines/b2", "pc-2", ["aa:bb:cc:dd:ee:02", "aa:bb:cc:dd:ee:03"]),
    Known("machines/c3", "pc-2", []),
    Known("machines/pc-1x", "a1", []),
]
CLOCK = Clock(datetime(2026, 11, 23, 3, 40, tzinfo=UTC), ZoneInfo("Europe/Berlin"))


def test_machines_are_named_by_id_display_name_or_address_each_once() -> None:
    assert choose(["pc-1", "machines/b2", "AABB.CCDD.EE01", "c3"], KNOWN) == [
        "machines/a1",
        "machines/b2",
        "machines/c3",
    ]
    assert choose(["a1"], KNOWN) == ["machines/a1"]  # an id wins over a name
    assert choose(["k7qf42x"], KNOWN) == ["machines/a1"]
    assert choose(["K7QF-42X"], KNOWN) == ["machines/a1"]


def test_a_name_of_several_machines_or_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'pc-2' names 2 machines: give one of the ids b2, c3"):
        choose(["pc-1", "pc-2"], KNOWN)
    with pytest.raises(NotFoundError, match="'ghost', 'pc-9'; see: fleetcast machine list"):
        choose(["ghost", "pc-1", "pc-9"], KNOWN)


def test_addresses_are_read_in_every_usual_form() -> None:
    for text in ("aa:bb:cc:dd:ee:ff", "AA-BB-CC-DD-EE-FF", "aabb.ccdd.eeff", "AABBCCDDEEFF"):
        assert mac_address(text) == "aa:bb:cc:dd:ee:ff"
    for text in ("", "aa:bb:cc:dd:ee", "gg:bb:cc:dd:ee:ff", "pc-1"):
        assert mac_address(text) == ""


def test_many_names_are_asked_for_in_filters_that_the_server_takes() -> None:
    filters = list(_filters([f"machine-{number}" for number in range(500)]))
    assert len(filters) > 1
    assert max(map(len, filters)) <= 4096
    assert sum(text.count('"machines/') for text in filters) == 500


def test_a_csv_is_put_into_the_form_of_the_server() -> None:
    header = "\ufeffdisplay_name;smbios_uuid;serial_number;mac_addresses;collection;variable:room"
    csv, bad = read_machines(f"{header}\nLeft;;S1;AABBCCDDEEFF;lab;5\n;;\n")
    assert bad == []
    assert csv.splitlines() == [
        "display_name,smbios_uuid,serial_number,mac_addresses,collection,variable:room",
        "Left,,S1,aa:bb:cc:dd:ee:ff,collections/lab,5",
    ]


def test_every_bad_row_is_named_with_its_line() -> None:
    _, bad = read_machines(
        "display_name,smbios_uuid,serial_number,mac_addresses,collection\n"
        "a,u1,s1,,\n"
        "b,,s2,,\n"
        "c,u3,s3,xyz abc,\n"
        "d,U1,s4,,\n"
        'e,u5,s5,,"a\nb"\n'
        "f,u6,s6,,x,surplus\n"
    )
    assert [(row.line, row.complaint.split(":")[0]) for row in bad] == [
        (3, "has fewer than two of smbios_uuid, serial_number, mac_addresses"),
        (4, "'xyz' is not a MAC address"),
        (4, "'abc' is not a MAC address"),
        (5, "has the same smbios_uuid u1 as line 2"),
        (7, "'a\\nb' is not the name of a collection"),
        (8, "has 6 fields, the header only 5"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("display_name,serial_number,mac_addresses\n", "no rows"),
        ("display_name,colour\na,b\n", "'colour' is not known"),
        ("serial_number,serial_number\na,b\n", "comes twice"),
        ("display_name,variable:1x\na,b\n", "'variable:1x' is not known"),
        ('display_name,serial_number\n"a,b\n', "is not CSV"),
    ],
)
def test_a_csv_with_a_wrong_header_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        read_machines(text)


@given(st.text())
def test_no_csv_raises_anything_but_the_error_of_the_kit(text: str) -> None:
    for prefix in ("", "display_name,serial_number,mac_addresses\n"):
        assert takes_or_says_why(partial(read_machines, prefix + text))


def test_variables_are_set_changed_and_removed() -> None:
    assert parse_variables(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    assert parse_variables(None) == {}
    assert change_variables({"a": "1", "b": "2"}, ["a=3", "c=4"], ["b"]) == {"a": "3", "c": "4"}
    for texts in (["a"], ["=1"], ["1a=1"], ["a b=1"], ["a=1", "a=2"]):
        with pytest.raises(InvalidArgumentError):
            parse_variables(texts)
    with pytest.raises(InvalidArgumentError, match="no variable 'z' to unset; there are: a"):
        change_variables({"a": "1"}, None, ["z"])
    with pytest.raises(InvalidArgumentError, match="both set and unset"):
        change_variables({"a": "1"}, ["a=2"], ["a"])


def test_a_variable_is_read_from_a_file_or_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("a=b@c d\n\r\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    assert parse_variables([f"a@{file}", "b@-", "c=x@y"]) == {"a": "a=b@c d\n", "b": "typed", "c": "x@y"}
    with pytest.raises(InvalidArgumentError, match="'/nowhere' cannot be read"):
        parse_variables(["a@/nowhere"])


@pytest.mark.parametrize(
    ("now", "text", "start"),
    [
        ("2026-12-01 10:58", "10:00 14h daily", "2026-12-01T10:00"),
        ("2026-12-01 10:58", "10:00 14h", "2026-12-01T10:00"),
        ("2026-12-01 10:58", "10:00 14h weekly", "2026-12-01T10:00"),
        ("2026-12-01 10:58", "tuesday 10:00 14h weekly", "2026-12-01T10:00"),
        ("2026-12-01 05:00", "22:00 8h daily", "2026-11-30T22:00"),
        ("2026-12-01 06:00", "22:00 8h daily", "2026-12-01T22:00"),
        ("2026-12-01 10:58", "08:00 2h daily", "2026-12-02T08:00"),
        ("2026-12-01 10:58", "2026-12-05 10:00 14h daily", "2026-12-05T10:00"),
        ("2026-12-01 10:58", "tomorrow 10:00 14h daily", "2026-12-02T10:00"),
        ("2026-12-01 10:58", "11:00 14h daily@Europe/Berlin", "2026-12-01T11:00"),
    ],
)
def test_a_window_whose_time_has_come_today_is_open_now(now: str, text: str, start: str) -> None:
    clock = Clock(datetime.fromisoformat(now).replace(tzinfo=UTC), UTC)
    assert parse_maintenance_windows([text], clock)[0].start == start


def test_maintenance_windows_are_read_and_shown() -> None:
    texts = [
        "22:00 8h daily",
        "2026-12-05 20:00 10h weekly@Europe/Berlin",
        "friday 18:00 1d FREQ=MONTHLY;BYDAY=1FR",
        "2026-12-24 08:00 4h",
    ]
    windows = parse_maintenance_windows(texts, CLOCK)
    assert [
        (window.start, window.duration.seconds // 3600, window.recurrence, window.time_zone) for window in windows
    ] == [
        ("2026-11-22T22:00", 8, "FREQ=DAILY", ""),
        ("2026-12-05T20:00", 10, "FREQ=WEEKLY", "Europe/Berlin"),
        ("2026-11-27T18:00", 24, "FREQ=MONTHLY;BYDAY=1FR", ""),
        ("2026-12-24T08:00", 4, "", ""),
    ]
    assert format_maintenance_window(windows[1]) == "from Sat 2026-12-05 20:00 for 10h, FREQ=WEEKLY, Europe/Berlin"
    assert format_maintenance_window(windows[3]) == "from Thu 2026-12-24 08:00 for 4h, once, each machine's own clock"
    assert parse_maintenance_windows(["none"], CLOCK) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nightly", "is not a maintenance window"),
        ("22:00", "is not a maintenance window"),
        ("22:00 8x daily", "'8x' is not a duration"),
        ("22:00 8h sometimes", "'sometimes' is not a recurrence"),
        ("22:00 8h daily@Mars", "'Mars' is not a time zone"),
        ("someday 22:00 8h daily", "'someday' is not a day"),
    ],
)
def test_what_is_no_maintenance_window_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        parse_maintenance_windows([text], CLOCK)


def test_a_recurrence_is_a_word_or_a_rule() -> None:
    assert recurrence("") == ""
    assert recurrence("Weekdays") == "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR"
    assert recurrence("FREQ=YEARLY") == "FREQ=YEARLY"
    with pytest.raises(InvalidArgumentError, match="'often' is not a recurrence"):
        recurrence("often")
