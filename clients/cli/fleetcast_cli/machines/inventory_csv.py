"""Machines to import, from the CSV that people's inventories and spreadsheets write."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_cli.machines.lookup import mac_address

_IDENTIFIERS = ("smbios_uuid", "serial_number", "mac_addresses")
_COLUMNS = ("display_name", *_IDENTIFIERS, "collection")
_VARIABLE = re.compile(r"variable:[A-Za-z_][A-Za-z0-9_]{0,63}")
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be imported."""

    line: int
    complaint: str
    """What is wrong with it, with which value, and what to do."""


def read_machines(text: str) -> tuple[str, list[BadRow]]:
    """Returns the CSV as the server takes it, and what is wrong with it, row by row.

    Commas or semicolons separate; a collection may be named without `collections/`. What only the server knows, such as
    machines that exist, is left to it.

    Raises:
        InvalidArgumentError: the header is wrong, or there are no rows.
    """
    text = text.removeprefix("\ufeff")
    header = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if ";" in header and "," not in header else ",", strict=True
    )
    lines: list[tuple[int, dict[str, str]]] = []
    bad: list[BadRow] = []
    try:
        columns = _columns(next(reader, []))
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if len(row) > len(columns):
                bad.append(
                    BadRow(reader.line_num, f"has {len(row)} fields, the header only {len(columns)}: remove the others")
                )
                continue
            filled = [value.strip() for value in row] + [""] * (len(columns) - len(row))
            lines.append((reader.line_num, dict(zip(columns, filled, strict=True))))
    except csv.Error as error:
        raise InvalidArgumentError(f"line {reader.line_num} is not CSV: {error}", field="file") from error
    if not lines and not bad:
        raise InvalidArgumentError("the file has no rows below its header: there is nothing to import", field="file")
    owners: dict[tuple[str, str], int] = {}
    for line, values in lines:
        bad += [BadRow(line, complaint) for complaint in _complaints(line, values, owners)]
    return _written(columns, [values for _, values in lines]), sorted(bad, key=lambda row: row.line)


def _columns(header: Sequence[str]) -> list[str]:
    columns = [name.strip() for name in header]
    for name in columns:
        if name not in _COLUMNS and not _VARIABLE.fullmatch(name):
            raise InvalidArgumentError(
                f"the column {name!r} is not known: there can be {', '.join(_COLUMNS)} and variable:NAME",
                field="file",
            )
        if columns.count(name) > 1:
            raise InvalidArgumentError(f"the column {name!r} comes twice: remove one", field="file")
    if not columns:
        raise InvalidArgumentError(
            f"the file is empty: its first line names the columns {', '.join(_COLUMNS)}", field="file"
        )
    return columns


def _complaints(line: int, values: dict[str, str], owners: dict[tuple[str, str], int]) -> list[str]:
    """Returns what is wrong with a row; puts what is right into the form that the server takes."""
    found = []
    addresses = values.get("mac_addresses", "").split()
    found += [f"{text!r} is not a MAC address: write aa:bb:cc:dd:ee:ff" for text in addresses if not mac_address(text)]
    if "mac_addresses" in values:
        values["mac_addresses"] = " ".join(map(mac_address, addresses))
    if not found and sum(bool(values.get(name)) for name in _IDENTIFIERS) < 2:
        found.append(f"has fewer than two of {', '.join(_IDENTIFIERS)}: one alone does not tell a machine from others")
    if collection := values.get("collection", "").removeprefix("collections/"):
        values["collection"] = f"collections/{collection}"
        if not _COLLECTION.fullmatch(collection):
            found.append(f"{collection!r} is not the name of a collection: write letters, digits and -")
    for kind in _IDENTIFIERS:
        for value in (
            values.get(kind, "").lower().split() if kind == "mac_addresses" else [values.get(kind, "").lower()]
        ):
            owner = owners.setdefault((kind, value), line) if value else line
            if owner != line:
                found.append(f"has the same {kind} {value} as line {owner}: write each machine once")
    return found


def _written(columns: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
