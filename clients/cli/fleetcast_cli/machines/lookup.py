"""Machines as people name them: by display name, by id, or by MAC address."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fleetcast.scheduler.v1 import machine_service_pb2
from fleetcast.scheduler.v1.machine_service_pb2 import Machine
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError
from fleetcast_kit.identity.key_code import read_code

from fleetcast_cli.shell.connection import every_page
from fleetcast_cli.shell.references import identifier

if TYPE_CHECKING:
    from fleetcast.scheduler.v1.machine_service_pb2_grpc import MachineServiceAsyncStub

_MAC = re.compile(r"[0-9a-f]{12}")
_MAX_FILTER_LENGTH = 4000
"""The server takes 4096 characters."""


class Known(NamedTuple):
    """What a machine can be named by."""

    name: str
    """Its resource name."""
    display_name: str
    mac_addresses: Iterable[str]
    code: str = ""
    """What its screen shows while it waits for approval."""


async def find_machines(machines: MachineServiceAsyncStub, texts: Sequence[str]) -> list[Machine]:
    """Returns the machines that `texts` name, each once, in their order.

    Raises:
        NotFoundError: nothing is named so.
        InvalidArgumentError: several machines are.
    """
    wanted = list(dict.fromkeys(texts))
    if not all(text.strip() for text in wanted):
        raise InvalidArgumentError("a machine's name is empty: give its name, id or MAC address", field="machine")
    known: list[Machine] = []
    for expression in _filters(wanted):
        async for answer in every_page(
            machines.ListMachines, machine_service_pb2.ListMachinesRequest(page_size=1000, filter=expression)
        ):
            known += answer.machines
    found = choose(
        wanted,
        [Known(one.name, one.display_name, one.inventory.mac_addresses, one.code) for one in known],
    )
    by_name = {machine.name: machine for machine in known}
    return [by_name[name] for name in found]


async def find_machine(machines: MachineServiceAsyncStub, text: str) -> Machine:
    """Returns the machine that `text` names.

    Raises:
        NotFoundError: nothing is named so.
        InvalidArgumentError: several machines are.
    """
    return (await find_machines(machines, [text]))[0]


def choose(texts: Iterable[str], known: Sequence[Known]) -> list[str]:
    """Returns the resource names of the machines that `texts` name, each once.

    `known` are the machines that can be meant. An id wins over a display name, that over an address, that over a code.

    Raises:
        NotFoundError: nothing is named so.
        InvalidArgumentError: several machines are.
    """
    found: dict[str, None] = {}
    missing: list[str] = []
    for text in texts:
        by_id = [one.name for one in known if one.name == _resource_name(text)]
        by_display_name = [one.name for one in known if one.display_name == text]
        by_address = [one.name for one in known if mac_address(text) in one.mac_addresses]
        by_code = [one.name for one in known if one.code and read_code(text) == one.code]
        matches = list(dict.fromkeys(by_id or by_display_name or by_address or by_code))
        if len(matches) > 1:
            few = ", ".join(map(identifier, matches[:5])) + (", …" if len(matches) > 5 else "")
            raise InvalidArgumentError(
                f"{text!r} names {len(matches)} machines: give one of the ids {few}", field="machine"
            )
        found |= dict.fromkeys(matches)
        missing += [] if matches else [text]
    if missing:
        few = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise NotFoundError(
            f"no machine has the name, id, MAC address or code {few}; see: fleetcast machine list",
            reason="MACHINE_NOT_FOUND",
        )
    return list(found)


def mac_address(text: str) -> str:
    """Returns the MAC address that `text` says as `aa:bb:cc:dd:ee:ff`; empty if it says none."""
    digits = re.sub(r"[:.-]", "", text.strip().lower())
    return ":".join(digits[start : start + 2] for start in range(0, 12, 2)) if _MAC.fullmatch(digits) else ""


def _resource_name(text: str) -> str:
    return f"machines/{text.removeprefix('machines/')}"


def _filters(texts: Sequence[str]) -> Iterator[str]:
    """Yields expressions that together hold for every machine that `texts` can mean, short enough for the server."""
    batch: list[str] = []
    for text in texts:
        if batch and len(_filter([*batch, text])) > _MAX_FILTER_LENGTH:
            yield _filter(batch)
            batch = []
        batch.append(text)
    yield _filter(batch)


def _filter(texts: Sequence[str]) -> str:
    names = _list(map(_resource_name, texts))
    parts = [f"machine.name in {names}", f"machine.display_name in {_list(texts)}"]
    if addresses := [address for text in texts if (address := mac_address(text))]:
        parts.append(f"machine.mac_addresses.exists(address, address in {_list(addresses)})")
    if codes := [code for text in texts if (code := read_code(text))]:
        parts.append(f"machine.code in {_list(codes)}")
    return " || ".join(parts)


def _list(texts: Iterable[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)
