"""TFTP packets: RFC 1350, with the options of RFC 2347 to 2349 and 7440."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from fleetcast_boot.errors import TftpError

_HEAD = struct.Struct("!HH")
_MAX_REQUEST_BYTES = 512
"""Of a request (RFC 2347, section "Packet Formats")."""


class Code(IntEnum):
    """Error codes (RFC 1350, section 5; RFC 2347)."""

    UNDEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER = 5
    OPTIONS_REFUSED = 8


class _Operation(IntEnum):
    READ, WRITE, DATA, ACK, ERROR, OPTIONS = range(1, 7)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A machine asks for a file."""

    path: str
    """Without leading slashes, parts separated by `/`."""
    options: Mapping[str, int]
    """Those that are numbers, by their names in small letters."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A machine has every block up to this one."""

    block: int
    """Modulo 65,536."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A machine gives a transfer up."""

    code: int
    message: str


def unpack_request(datagram: bytes) -> ReadRequest:
    """Returns what a datagram asks for that came to the well-known port.

    Raises:
        TftpError: it asks for nothing that is served.
    """
    operation = _operation(datagram)
    if operation == _Operation.WRITE:
        raise TftpError("nothing can be written here", Code.ACCESS_VIOLATION)
    if operation != _Operation.READ or len(datagram) > _MAX_REQUEST_BYTES:
        raise TftpError("this is no request to read", Code.ILLEGAL_OPERATION)
    if not datagram.endswith(b"\0"):
        raise TftpError("the request ends in the middle of a word", Code.ILLEGAL_OPERATION)
    words = [word.decode("ascii", "replace") for word in datagram[2:-1].split(b"\0")]
    if len(words) < 2 or words[1].lower() != "octet":
        raise TftpError("only the mode octet is served", Code.ILLEGAL_OPERATION)
    options: dict[str, int] = {}
    for name, value in zip(words[2::2], words[3::2], strict=False):
        if value.isascii() and value.isdigit() and len(value) < 12:
            options[name.lower()] = int(value)
    path = words[0].replace("\\", "/")
    return ReadRequest("/".join(part for part in path.split("/") if part), options)


def unpack_reply(datagram: bytes) -> Acknowledgement | Failure:
    """Returns what a machine says of a transfer under way.

    Raises:
        TftpError: it is neither of both.
    """
    operation = _operation(datagram)
    if operation not in (_Operation.ACK, _Operation.ERROR) or len(datagram) < _HEAD.size:
        raise TftpError("this is no acknowledgement", Code.ILLEGAL_OPERATION)
    _, number = _HEAD.unpack_from(datagram)
    if operation == _Operation.ACK:
        return Acknowledgement(number)
    return Failure(number, datagram[_HEAD.size :].partition(b"\0")[0][:200].decode("ascii", "replace"))


def pack_data(block: int, content: bytes | memoryview) -> bytes:
    """Returns a block of a file; `block` counts from 1 and may be beyond 65,535."""
    return _HEAD.pack(_Operation.DATA, block & 0xFFFF) + content


def pack_options(options: Mapping[str, int]) -> bytes:
    """Returns the options of the request that are taken, with the values that hold."""
    words = b"".join(f"{name}\0{value}\0".encode() for name, value in options.items())
    return struct.pack("!H", _Operation.OPTIONS) + words


def pack_error(error: TftpError) -> bytes:
    """Returns why a request is refused."""
    return _HEAD.pack(_Operation.ERROR, error.code) + str(error).encode("ascii", "replace") + b"\0"


def _operation(datagram: bytes) -> int:
    if len(datagram) < 2:
        raise TftpError("the packet is too short", Code.ILLEGAL_OPERATION)
    return int.from_bytes(datagram[:2])
