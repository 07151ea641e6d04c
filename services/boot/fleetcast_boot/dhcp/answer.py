"""What a proxyDHCP service answers: which file to start, and never an address (PXE 2.1, sections 2.2 and 2.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from uuid import UUID

from fleetcast_boot.dhcp.message import DhcpMessage, MessageType, Operation, Option
from fleetcast_boot.domain import FIRMWARE_OF, Asker, Firmware, Way, mac_text

SERVER_PORT, CLIENT_PORT = 67, 68
PXE_PORT = 4011
"""Where PXE clients ask a proxyDHCP service again (PXE 2.1, section 2.2.3)."""

BROADCAST = IPv4Address("255.255.255.255")

_ETHERNET, _ETHERNET_BYTES = 1, 6
_NO_ADDRESS = IPv4Address(0)
_TAKE_THE_FILE = b"\x06\x01\x08\xff"
"""PXE_DISCOVERY_CONTROL with bit 3: start the file of this answer, without asking or searching further (table 2-1)."""
_UUID_TYPE = 0


class VendorClass(StrEnum):
    """How the kinds of clients begin their option 60."""

    PXE = "PXEClient"
    HTTP = "HTTPClient"


@dataclass(frozen=True, slots=True)
class Loaders:
    """Where the first file of each kind of machine is."""

    server: IPv4Address
    """Of this service, on the segment of the asker."""
    http_port: int
    files: dict[Firmware, str]
    """The path of the boot loader, such as `amd64/shimx64.efi`."""

    def file_for(self, asker: Asker) -> str | None:
        """Returns what a machine has to load: a path of TFTP or a URL; None if there is no loader for it."""
        path = self.files.get(asker.firmware)
        if path is None or asker.way is Way.PXE:
            return path
        return f"http://{self.server}:{self.http_port}/{path}"


def asker_of(message: DhcpMessage, port: int) -> Asker | None:
    """Returns who asks for a file to start, in a message that came to `port`; None if it does not ask for that here."""
    kind = message.options.get(Option.MESSAGE_TYPE, b"")
    asks = (MessageType.DISCOVER,) if port == SERVER_PORT else (MessageType.DISCOVER, MessageType.REQUEST)
    if message.operation != Operation.REQUEST or len(kind) != 1 or kind[0] not in asks:
        return None
    if message.hardware_type != _ETHERNET or len(message.hardware_address) != _ETHERNET_BYTES:
        return None
    architecture = message.options.get(Option.ARCHITECTURE, b"")[:2]
    if len(architecture) != 2:
        return None
    firmware, way = FIRMWARE_OF.get(struct.unpack("!H", architecture)[0], (None, None))
    if firmware is None or way is None:
        return None
    if not message.options.get(Option.VENDOR_CLASS, b"").startswith(_vendor_class(way)):
        return None
    return Asker(mac_text(message.hardware_address), _uuids(message), firmware, way)


def answer(message: DhcpMessage, asker: Asker, loaders: Loaders) -> DhcpMessage | None:
    """Returns the answer to `asker`, who sent the message; None if there is no loader for it."""
    file = loaders.file_for(asker)
    if file is None:
        return None
    discovered = message.options[Option.MESSAGE_TYPE][0] == MessageType.DISCOVER
    options: dict[int, bytes] = {
        Option.MESSAGE_TYPE: bytes([MessageType.OFFER if discovered else MessageType.ACK]),
        Option.SERVER: loaders.server.packed,
        Option.VENDOR_CLASS: _vendor_class(asker.way),
        Option.SERVER_NAME: str(loaders.server).encode(),
        Option.BOOT_FILE: file.encode(),
    }
    if asker.way is Way.PXE:
        options[Option.VENDOR_SPECIFIC] = _TAKE_THE_FILE
    if machine_id := message.options.get(Option.MACHINE_ID):
        options[Option.MACHINE_ID] = machine_id
    return DhcpMessage(
        operation=Operation.REPLY,
        transaction=message.transaction,
        hardware_address=message.hardware_address,
        hardware_type=message.hardware_type,
        flags=message.flags,
        client_address=message.client_address,
        server_address=loaders.server,
        relay_address=message.relay_address,
        server_name=str(loaders.server).encode(),
        boot_file=file.encode() if asker.way is Way.PXE else b"",
        options=options,
    )


def destination(message: DhcpMessage, came_from: tuple[str, int], port: int) -> tuple[str, int]:
    """Returns where the answer to a message goes, that came to `port` from an address (RFC 2131, section 4.1)."""
    if message.relay_address != _NO_ADDRESS:
        return str(message.relay_address), SERVER_PORT
    if port != SERVER_PORT:
        return came_from
    if message.client_address != _NO_ADDRESS:
        return str(message.client_address), CLIENT_PORT
    return str(BROADCAST), CLIENT_PORT


def _vendor_class(way: Way) -> bytes:
    return (VendorClass.PXE if way is Way.PXE else VendorClass.HTTP).encode()


def _uuids(message: DhcpMessage) -> tuple[UUID, ...]:
    """Returns what the UUID of option 97 may mean: SMBIOS 2.6 turned the byte order of its first fields around."""
    machine_id = message.options.get(Option.MACHINE_ID, b"")
    if len(machine_id) != 17 or machine_id[0] != _UUID_TYPE or machine_id[1:] in (bytes(16), b"\xff" * 16):
        return ()
    return UUID(bytes_le=machine_id[1:]), UUID(bytes=machine_id[1:])
