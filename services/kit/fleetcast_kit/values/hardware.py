"""What tells one machine from another: SMBIOS UUID, serial number, MAC addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SMBIOS_UUID, SERIAL_NUMBER, MAC_ADDRESS = "SMBIOS UUID", "serial number", "MAC address"
"""Kinds of identifiers."""

_MEANINGLESS = frozenset(
    {
        "",
        "0",
        "none",
        "n/a",
        "unknown",
        "default string",
        "not specified",
        "system serial number",
        "to be filled by o.e.m.",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",  # one board maker's default, on thousands of machines
    }
)

Identifiers = Mapping[str, frozenset[str]]
"""Values by kind; a kind without a value is left out."""


def identifiers(smbios_uuid: str, serial_number: str, mac_addresses: Iterable[str]) -> Identifiers:
    """Returns what can tell a machine from others; what makers leave blank does not."""
    found = {
        SMBIOS_UUID: _meaningful([smbios_uuid]),
        SERIAL_NUMBER: _meaningful([serial_number]),
        MAC_ADDRESS: _meaningful(mac_addresses),
    }
    return {kind: values for kind, values in found.items() if values}


def agreement(one: Identifiers, other: Identifiers) -> list[str]:
    """Returns the kinds of identifiers in which two machines agree."""
    return [kind for kind, values in one.items() if values & other.get(kind, frozenset())]


def is_other_hardware(before: Identifiers, now: Identifiers) -> bool:
    """Returns whether no identifier is what it was, of those that can be compared: one and the same machine never is.

    A board, a network adapter or a virtual machine may change one or two; what is not known now cannot be compared.
    """
    return bool(before.keys() & now.keys()) and not agreement(before, now)


def difference(before: Identifiers, now: Identifiers) -> str:
    """Returns what is other than it was, by the identifier that people know best: `serial number pc2, not pc1`."""
    kind = next(kind for kind in (SERIAL_NUMBER, MAC_ADDRESS, SMBIOS_UUID) if kind in before and kind in now)
    return f"{kind} {' '.join(sorted(now[kind]))}, not {' '.join(sorted(before[kind]))}"


def _meaningful(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.strip().lower() for value in values) - _MEANINGLESS
