"""`fleetcast machine import`: machines made known ahead of their first boot."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Annotated

import typer
from fleetcast.scheduler.v1 import machine_service_pb2
from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceStub
from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_cli.machines.commands import group
from fleetcast_cli.machines.inventory_csv import read_machines
from fleetcast_cli.machines.view import machine_list
from fleetcast_cli.shell.command import Json, command
from fleetcast_cli.shell.connection import UNARY_SECONDS, connection
from fleetcast_cli.shell.plain import to_plain, write_json
from fleetcast_cli.shell.text import output, plural, progress

MAX_FILE_BYTES = 8 << 20
"""Half of what a message may have: some 60,000 machines."""


@command(group, "import", span="fleetcast machine import")
async def import_machines(
    context: typer.Context,
    *,
    file: Annotated[
        str, typer.Argument(metavar="FILE.csv", help="The file; `-` reads standard input.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Make machines known ahead of their first boot: all rows of a CSV file, or none if one is wrong.

    The first line names the columns: display_name, at least two of smbios_uuid, serial_number and mac_addresses
    (several separated by spaces) filled in each row, and if wanted collection and variable:NAME. A machine that
    registers and agrees in two of the three becomes that row.
    """
    text, bad = read_machines(_read(file))
    for row in bad:
        progress().print(f"line {row.line}: {row.complaint}", soft_wrap=True)
    if bad:
        count = len({row.line for row in bad})
        raise InvalidArgumentError(
            f"{plural(count, 'row')} of {file} cannot be imported: nothing was imported", field="file"
        )
    async with connection(context).dial() as channel:
        request = machine_service_pb2.ImportMachinesRequest(csv=text, request_id=str(uuid.uuid4()))
        made = (await MachineServiceStub(channel).ImportMachines(request, timeout=UNARY_SECONDS)).machines
    if as_json:
        write_json({"machines": [to_plain(machine) for machine in made]})
        return
    output().print(machine_list(made))
    progress().print(f"imported {plural(len(made), 'machine')}")


def _read(path: str) -> str:
    """Returns the text of a file.

    Raises:
        InvalidArgumentError: it cannot be read, is not text, or too long.
    """
    try:
        content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"the file {path!r} cannot be read: {error.strerror}", field="file") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgumentError(
            f"the file {path!r} has {len(content)} bytes or more: import at most {MAX_FILE_BYTES} at once", field="file"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidArgumentError(
            f"line {line} of {path!r} is not UTF-8: save it as CSV UTF-8", field="file"
        ) from error
