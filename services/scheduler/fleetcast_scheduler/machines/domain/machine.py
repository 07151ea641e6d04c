"""Machines: their hardware, how one is recognised, and what becomes of those that nobody knows."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from enum import StrEnum

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.values import hardware
from fleetcast_kit.values.hardware import MAC_ADDRESS, SERIAL_NUMBER, SMBIOS_UUID, Identifiers, identifiers

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class MachineState(StrEnum):
    """Whether a machine may take part."""

    EXPECTED = "EXPECTED"
    HELD = "HELD"
    APPROVED = "APPROVED"


class RegistrationAction(StrEnum):
    """What becomes of an unknown machine that registers."""

    ACCEPT = "ACCEPT"
    HOLD = "HOLD"
    REFUSE = "REFUSE"


@dataclass(frozen=True, slots=True)
class RegistrationPolicy:
    """What becomes of unknown machines that register."""

    action: RegistrationAction = RegistrationAction.ACCEPT
    collection: str = ""
    """Collection that accepted ones become members of."""
    imported: RegistrationAction = RegistrationAction.ACCEPT
    """What becomes of a machine that is recognised as an imported one; never REFUSE."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A fixed disk."""

    device: str = ""
    model: str = ""
    serial_number: str = ""
    size_bytes: int = 0
    sector_size_bytes: int = 0
    """Of its logical sectors; 0 if the machine did not say."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The hardware of a machine; the fields are those of the API."""

    smbios_uuid: str = ""
    serial_number: str = ""
    mac_addresses: tuple[str, ...] = ()
    manufacturer: str = ""
    model: str = ""
    architecture: str = ""
    firmware: str = ""
    processor: str = ""
    processor_count: int = 0
    memory_bytes: int = 0
    disks: tuple[Disk, ...] = ()

    def identifiers(self) -> Identifiers:
        """Returns what can tell the machine from others, by kind; what makers leave blank does not."""
        return identifiers(self.smbios_uuid, self.serial_number, self.mac_addresses)


def agreement(one: Inventory, other: Inventory) -> list[str]:
    """Returns the kinds of identifiers in which two machines agree."""
    return hardware.agreement(one.identifiers(), other.identifiers())


def resemblance(one: Inventory, other: Inventory) -> list[str]:
    """Returns the kinds of identifiers by which two machines may be one; empty if they are surely two.

    A MAC address alone says nothing where UUID and serial number of both are known and differ: a USB network adapter
    goes from laptop to laptop.
    """
    kinds = agreement(one, other)
    known = one.identifiers().keys() & other.identifiers().keys()
    return [] if kinds == [MAC_ADDRESS] and {SMBIOS_UUID, SERIAL_NUMBER} <= known else kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that an installation knows."""

    name: str
    """`machines/{id}`."""
    create_time: float
    display_name: str = ""
    state: MachineState = MachineState.APPROVED
    held_reason: str = ""
    resembles: str = ""
    inventory: Inventory = field(default_factory=Inventory)
    claimed: Inventory | None = None
    """What it says of itself now, while it is held because that is not what it was; None otherwise."""
    variables: dict[str, str] = field(default_factory=dict)
    protected: bool = False
    time_zone: str = ""
    """Name in the IANA time zone database; empty if it did not say."""
    register_time: float | None = None
    edit_count: int = 0
    code: str = ""
    """Of its key, as its screen shows it; empty unless it started from the network."""


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One row of an import."""

    display_name: str
    inventory: Inventory
    variables: dict[str, str]
    collection: str = ""


def read_csv(text: str) -> list[ImportRow]:
    """Returns the rows of an import, all of them checked.

    Raises:
        InvalidArgumentError: a column or a row is wrong; the sentence names it.
    """
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=None), restval="", strict=True)
    try:
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        _check_columns(columns)
        reader.fieldnames = columns
        rows = [_import_row(values, reader.line_num) for values in reader]
    except csv.Error as error:
        raise InvalidArgumentError(f"line {reader.line_num + 1} is not CSV: {error}", field="csv") from error
    owners: dict[tuple[str, str], ImportRow] = {}
    for row in rows:
        for kind, values in row.inventory.identifiers().items():
            for value in values:
                owner = owners.setdefault((kind, value), row)
                if owner is not row and kind in resemblance(row.inventory, owner.inventory):
                    raise InvalidArgumentError(
                        f"{row.display_name!r} and {owner.display_name!r} have the same {kind} {value}: write "
                        "each machine once",
                        field="csv",
                    )
    return rows


def _check_columns(columns: list[str]) -> None:
    known = {"display_name", "smbios_uuid", "serial_number", "mac_addresses", "collection"}
    unknown = [name for name in columns if name not in known and not name.startswith("variable:")]
    if not columns:
        raise InvalidArgumentError("the CSV is empty: its first line names the columns", field="csv")
    if unknown:
        raise InvalidArgumentError(
            f"the CSV has the unknown column {unknown[0]!r}: it can have {', '.join(sorted(known))} and variable:NAME",
            field="csv",
        )


def mac_address(text: str) -> str:
    """Returns a MAC address in the form `aa:bb:cc:dd:ee:ff`.

    Raises:
        InvalidArgumentError: the text is not a MAC address.
    """
    plain = re.sub(r"[-:.]", "", text.strip().lower())
    address = ":".join(plain[start : start + 2] for start in range(0, len(plain), 2))
    if not _MAC.fullmatch(address):
        raise InvalidArgumentError(f"{text!r} is not a MAC address: write aa:bb:cc:dd:ee:ff", field="mac_addresses")
    return address


def check_variables(variables: dict[str, str]) -> dict[str, str]:
    """Returns `variables` if all names are possible.

    Raises:
        InvalidArgumentError: one is not.
    """
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise InvalidArgumentError(
                f"{name!r} is not the name of a variable: letters, digits and _, at most 64, no digit first",
                field="variables",
            )
    return variables


def _import_row(values: dict[str | None, str | list[str]], line: int) -> ImportRow:
    if None in values:
        raise InvalidArgumentError(f"line {line} has more fields than the header", field="csv")
    texts = {str(name): str(value).strip() for name, value in values.items()}
    try:
        macs = tuple(mac_address(text) for text in texts.get("mac_addresses", "").split())
        variables = check_variables(
            {name.partition(":")[2]: text for name, text in texts.items() if name.startswith("variable:") and text}
        )
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"line {line}: {error.message}", field="csv") from error
    inventory = Inventory(
        smbios_uuid=texts.get("smbios_uuid", "").lower(),
        serial_number=texts.get("serial_number", ""),
        mac_addresses=macs,
    )
    if len(inventory.identifiers()) < 2:
        raise InvalidArgumentError(
            f"line {line} has fewer than two of smbios_uuid, serial_number and mac_addresses: one alone does not tell "
            "a machine from others",
            field="csv",
        )
    return ImportRow(texts.get("display_name", ""), inventory, variables, texts.get("collection", ""))
