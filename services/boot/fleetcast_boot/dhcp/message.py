"""DHCP messages: RFC 2131, options of RFC 2132, long options of RFC 3396."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

from fleetcast_boot.errors import DhcpError

MAGIC = b"\x63\x82\x53\x63"
MIN_BYTES = 300
"""A BOOTP message has at least so many bytes (RFC 1542, section 2.1); some clients ignore shorter ones."""

_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_NO_ADDRESS = IPv4Address(0)
_PAD, _END = 0, 255
_FILE_HAS_OPTIONS, _NAME_HAS_OPTIONS = 1, 2


class Option(IntEnum):
    """The options that are read or written here."""

    VENDOR_SPECIFIC = 43
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER = 54
    VENDOR_CLASS = 60
    SERVER_NAME = 66
    BOOT_FILE = 67
    USER_CLASS = 77
    ARCHITECTURE = 93
    MACHINE_ID = 97


class Operation(IntEnum):
    """Which way a message goes."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Kinds of messages (option 53)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """One message. Addresses that are not set are 0.0.0.0."""

    operation: int
    transaction: int
    """What ties an answer to its question (xid)."""
    hardware_address: bytes
    """Of the client, at most 16 bytes; for Ethernet six."""
    hardware_type: int = 1
    flags: int = 0
    seconds: int = 0
    hops: int = 0
    client_address: IPv4Address = _NO_ADDRESS
    your_address: IPv4Address = _NO_ADDRESS
    server_address: IPv4Address = _NO_ADDRESS
    relay_address: IPv4Address = _NO_ADDRESS
    server_name: bytes = b""
    """At most 63 bytes."""
    boot_file: bytes = b""
    """At most 127 bytes."""
    options: Mapping[int, bytes] = field(default_factory=dict)


def unpack(datagram: bytes) -> DhcpMessage:
    """Returns the message in a datagram.

    Raises:
        DhcpError: it is none.
    """
    if len(datagram) < _FIXED.size + len(MAGIC):
        raise DhcpError(f"{len(datagram)} bytes are too few for a DHCP message")
    operation, hardware_type, length, hops, transaction, seconds, flags, *rest = _FIXED.unpack_from(datagram)
    client, your, server, relay, hardware, name, file = rest
    if datagram[_FIXED.size : _FIXED.size + len(MAGIC)] != MAGIC:
        raise DhcpError("the message is BOOTP without the options of DHCP")
    if length > len(hardware):
        raise DhcpError(f"the hardware address has {length} bytes, and the field for it 16")
    options = _unpack_options(datagram[_FIXED.size + len(MAGIC) :])
    overload = options.get(Option.OVERLOAD, b"\0")[:1]
    if overload and overload[0] & _FILE_HAS_OPTIONS:
        _add(options, _unpack_options(file))
        file = b""
    if overload and overload[0] & _NAME_HAS_OPTIONS:
        _add(options, _unpack_options(name))
        name = b""
    return DhcpMessage(
        operation=operation,
        transaction=transaction,
        hardware_address=hardware[:length],
        hardware_type=hardware_type,
        flags=flags,
        seconds=seconds,
        hops=hops,
        client_address=IPv4Address(client),
        your_address=IPv4Address(your),
        server_address=IPv4Address(server),
        relay_address=IPv4Address(relay),
        server_name=name.partition(b"\0")[0],
        boot_file=file.partition(b"\0")[0],
        options=options,
    )


def pack(message: DhcpMessage) -> bytes:
    """Returns the datagram of a message.

    Raises:
        ValueError: a field is too long; a defect of the program.
    """
    if len(message.server_name) > 63 or len(message.boot_file) > 127 or len(message.hardware_address) > 16:
        raise ValueError("a field of a DHCP message is too long")
    fixed = _FIXED.pack(
        message.operation,
        message.hardware_type,
        len(message.hardware_address),
        message.hops,
        message.transaction,
        message.seconds,
        message.flags,
        message.client_address.packed,
        message.your_address.packed,
        message.server_address.packed,
        message.relay_address.packed,
        message.hardware_address,
        message.server_name,
        message.boot_file,
    )
    options = b"".join(
        bytes([code, len(part)]) + part for code, value in message.options.items() for part in _parts(value)
    )
    return (fixed + MAGIC + options + bytes([_END])).ljust(MIN_BYTES, b"\0")


def _parts(value: bytes) -> list[bytes]:
    """Returns what one option carries, in pieces of at most 255 bytes (RFC 3396, section 5)."""
    return [value[begin : begin + 255] for begin in range(0, len(value), 255)] or [b""]


def _unpack_options(area: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    position = 0
    while position < len(area):
        code = area[position]
        if code == _END:
            break
        if code == _PAD:
            position += 1
            continue
        if position + 1 >= len(area):
            raise DhcpError(f"option {code} has no length")
        end = position + 2 + area[position + 1]
        if end > len(area):
            raise DhcpError(f"option {code} ends behind the message")
        _add(options, {code: area[position + 2 : end]})
        position = end
    return options


def _add(options: dict[int, bytes], more: Mapping[int, bytes]) -> None:
    for code, value in more.items():
        options[code] = options.get(code, b"") + value
