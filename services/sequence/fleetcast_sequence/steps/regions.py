"""Time zones, languages and keyboards as Windows and Linux call them; one is translated into the other where it can be.

Zones are translated by the table `windowsZones` of the Unicode CLDR, as the package tzlocal carries it.
"""

from __future__ import annotations

import difflib
import re

from tzlocal.windows_tz import tz_win, win_tz

_OBSOLETE = ("Kamchatka Standard Time", "Mid-Atlantic Standard Time")
"""Windows still takes them; the CLDR has no zone for them any more."""
_WITHOUT_SUMMER_TIME = "_dstoff"
_WINDOWS_ZONES = {name.lower(): name for name in (*win_tz, *_OBSOLETE)}
_TO_WINDOWS = tz_win | {
    "GMT": "UTC",
    "EST5EDT": "Eastern Standard Time",
    "CST6CDT": "Central Standard Time",
    "MST7MDT": "Mountain Standard Time",
    "PST8PDT": "Pacific Standard Time",
    "US/East-Indiana": tz_win["America/Indianapolis"],
    "Europe/Uzhgorod": tz_win["Europe/Kyiv"],
    "Europe/Zaporozhye": tz_win["Europe/Kyiv"],
}
"""With older names that tzlocal leaves out."""
_IANA_ZONES = {name.lower(): name for name in (*_TO_WINDOWS, "Antarctica/Troll") if name}
_WINDOWS_LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?-([A-Z]{2}|[0-9]{3})(-[A-Za-z0-9]{2,8})?")
_KEYBOARD = re.compile(r"[0-9A-Fa-f]{4}:([0-9A-Fa-f]{8}|\{[0-9A-Fa-f-]{36}\}\{[0-9A-Fa-f-]{36}\})")
_LINUX_LOCALE = re.compile(r"(C|POSIX|[a-z]{2,3}_[A-Z]{2})(\.[A-Za-z0-9-]+)?(@[A-Za-z]+)?")


def windows_zone(name: str) -> str:
    """Returns the time zone `name`, which may be one of the IANA such as `Europe/Berlin`, as Windows calls it.

    Raises:
        ValueError: there is no such time zone; names those that are spelled alike.
    """
    plain = name.removesuffix(_WITHOUT_SUMMER_TIME)
    if plain.lower() in _WINDOWS_ZONES:
        return _WINDOWS_ZONES[plain.lower()] + name[len(plain) :]
    if (zone := _IANA_ZONES.get(name.lower())) in _TO_WINDOWS:
        return _TO_WINDOWS[zone]
    raise ValueError(_unknown(name, "W. Europe Standard Time or Europe/Berlin"))


def linux_zone(name: str) -> str:
    """Returns the time zone `name`, which may be one of Windows, as the IANA calls it.

    Raises:
        ValueError: there is no such time zone; names those that are spelled alike.
    """
    if name.lower() in _IANA_ZONES:
        return _IANA_ZONES[name.lower()]
    windows = _WINDOWS_ZONES.get(name.lower(), "")
    if windows in win_tz:
        return win_tz[windows]
    raise ValueError(_unknown(name, "Europe/Berlin"))


def _unknown(name: str, example: str) -> str:
    alike = difflib.get_close_matches(name.lower(), [*_WINDOWS_ZONES, *_IANA_ZONES], n=3)
    spelled = ", ".join({**_WINDOWS_ZONES, **_IANA_ZONES}[one] for one in alike)
    return f"there is no time zone {name!r}: " + (f"did you mean {spelled}?" if alike else f"write it like {example}")


def windows_locale(name: str) -> str:
    """Returns the language `name` if it is written as Windows does.

    Raises:
        ValueError: it is not; says how it may be meant.
    """
    if _WINDOWS_LOCALE.fullmatch(name):
        return name
    parts = re.split(r"[-_]", re.split(r"[.@]", name)[0])
    meant = f"{parts[0].lower()}-{parts[1].upper()}" if len(parts) == 2 else ""
    hint = meant if _WINDOWS_LOCALE.fullmatch(meant) else "de-DE, with the language and the country"
    raise ValueError(f"{name!r} is no language of Windows: write it like {hint}")


def windows_keyboards(text: str) -> str:
    """Returns keyboards of Windows, divided by semicolons, if each is written as Windows does.

    Raises:
        ValueError: one is not.
    """
    for name in text.split(";"):
        if _KEYBOARD.fullmatch(name):
            continue
        try:
            windows_locale(name)
        except ValueError as error:
            raise ValueError(
                f"{name!r} is no keyboard of Windows: write it like 0407:00000407, or like de-DE for that of a language"
            ) from error
    return text


def linux_locale(name: str) -> str:
    """Returns the locale `name` if it is written as Linux does.

    Raises:
        ValueError: it is not; says how it may be meant.
    """
    if _LINUX_LOCALE.fullmatch(name):
        return name
    parts = re.split(r"[-_]", re.split(r"[.@]", name)[0])
    meant = f"{parts[0].lower()}_{parts[1].upper()}.UTF-8" if len(parts) == 2 else ""
    hint = meant if _LINUX_LOCALE.fullmatch(meant) else "de_DE.UTF-8"
    raise ValueError(f"{name!r} is no locale of Linux: write it like {hint}")
