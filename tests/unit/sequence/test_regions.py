from __future__ import annotations

import zoneinfo
from typing import Any

import pytest
from fleetcast_sequence import SequenceFileError, parse
from fleetcast_sequence.steps.regions import linux_zone, windows_zone
from fleetcast_sequence.steps.settings import ApplyLinuxSettings, ApplyNetworkSettings, ApplyWindowsSettings
from pydantic import ValidationError

JAPANESE = "0411:{03B5835F-F03C-411B-9CE2-AA23E1171E36}{A76C93D9-5523-4E90-AAFA-4DB112F9AC76}"


def windows(**fields: Any) -> ApplyWindowsSettings:
    return ApplyWindowsSettings.model_validate({"volume": "windows", **fields})


def linux(**fields: Any) -> ApplyLinuxSettings:
    return ApplyLinuxSettings.model_validate({"volume": "root", **fields})


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("Europe/Berlin", "W. Europe Standard Time"),
        ("america/new_york", "Eastern Standard Time"),
        ("Asia/Calcutta", "India Standard Time"),
        ("Asia/Kolkata", "India Standard Time"),
        ("EST5EDT", "Eastern Standard Time"),
        ("UTC", "UTC"),
        ("w. europe standard time", "W. Europe Standard Time"),
        ("Pacific Standard Time_dstoff", "Pacific Standard Time_dstoff"),
        ("", ""),
    ],
)
def test_windows_gets_its_own_name_of_a_time_zone(given: str, written: str) -> None:
    assert windows(time_zone=given).time_zone == written


def test_linux_gets_its_own_name_of_a_time_zone() -> None:
    assert linux(time_zone="W. Europe Standard Time").time_zone == "Europe/Berlin"
    assert linux(time_zone="europe/kyiv").time_zone == "Europe/Kyiv"


def test_every_time_zone_of_the_iana_is_known() -> None:
    for zone in zoneinfo.available_timezones() - {"Factory", "localtime"}:
        assert linux_zone(zone) == zone
        if zone != "Antarctica/Troll":
            windows_zone(zone)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"time_zone": "Europe/Berln"}, "did you mean Europe/Berlin"),
        ({"locale": "de_DE.UTF-8"}, "write it like de-DE"),
        ({"locale": "german"}, "write it like de-DE, with the language and the country"),
        ({"keyboard": "qwertz"}, "'qwertz' is no keyboard of Windows"),
        ({"computer_name": "a" * 16}, "at most 15"),
        ({"computer_name": "room 5"}, "pattern"),
        ({"computer_name": "12345"}, "pattern"),
        ({"product_key": "AAAAA-BBBBB"}, "pattern"),
        ({"organization": "Müller\x0bAG"}, "cannot be written"),
        ({"administrator_password": "line\nline"}, "cannot be written"),
        ({"administrator_password": ""}, "at least 1"),
        ({"workgroup": "ROOM/5"}, "has no '/' in its name"),
        ({"workgroup": "A" * 16}, "at most 15"),
        ({"domain": {"name": "exa mple", "account": "a", "password": "b"}}, "no part of a host name"),
        (
            {"domain": {"name": "example.org", "account": "a", "password": "b", "organizational_unit": "Room 5"}},
            "no distinguished name",
        ),
    ],
)
def test_what_windows_setup_would_stop_at_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        windows(**fields)


@pytest.mark.parametrize(
    "keyboard",
    [
        "0407:00000407",
        "de-DE",
        "de-DE;en-US",
        JAPANESE,
    ],
)
@pytest.mark.parametrize("locale", ["de-DE", "sr-Latn-RS", "es-419", "ca-ES-valencia", ""])
def test_languages_and_keyboards_of_windows_are_taken(keyboard: str, locale: str) -> None:
    windows(keyboard=keyboard, locale=locale)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"locale": "de-DE"}, "write it like de_DE.UTF-8"),
        ({"locale": "de_DE.UTF-8\nX=1"}, "is no locale of Linux"),
        ({"time_zone": "../../etc/passwd"}, "there is no time zone"),
        ({"host_name": "-pc"}, "'-pc' is no part of a host name"),
        ({"host_name": "a" * 64}, "at most 63"),
        ({"host_name": "pc..example"}, "no part of a host name"),
    ],
)
def test_what_linux_would_not_take_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        linux(**fields)


@pytest.mark.parametrize("locale", ["de_DE.UTF-8", "C.UTF-8", "C", "POSIX", "ca_ES.UTF-8@valencia", "de_AT"])
def test_locales_of_linux_are_taken(locale: str) -> None:
    assert linux(locale=locale).locale == locale


@pytest.mark.parametrize("fields", [{"gateway": "192.0.2"}, {"dns": ["server"]}, {"search": ["exa mple"]}])
def test_addresses_and_domains_of_a_network_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApplyNetworkSettings.model_validate({"volume": "root", "adapters": [fields]})


def test_a_file_with_a_wrong_value_is_refused_and_one_with_a_template_is_not() -> None:
    step = "{{name: W, type: apply-windows-settings, with: {{volume: w, time_zone: {}}}}}"
    source = f"name: s\nvariables: {{{{zone: Europe/Berlin}}}}\nsteps:\n  - {step}\n"
    parse(source.format('"{{ zone }}"'))
    with pytest.raises(SequenceFileError, match="there is no time zone 'Nowhere'"):
        parse(source.format("Nowhere"))
