"""Who starts from the network, and what it may be told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from uuid import UUID


class Way(StrEnum):
    """How a machine gets its boot loader."""

    PXE = "PXE"
    """By TFTP."""
    HTTP = "HTTP boot"
    """By HTTP: what newer UEFI firmware offers beside PXE."""


class Firmware(Enum):
    """What starts the machine, and so which boot loader it needs."""

    BIOS = "BIOS", "amd64"
    UEFI_AMD64 = "UEFI", "amd64"
    UEFI_ARM64 = "UEFI", "arm64"

    def __init__(self, kind: str, architecture: str) -> None:
        self.kind = kind
        self.architecture = architecture
        """As Debian names it."""

    def __str__(self) -> str:
        return f"{self.kind} {self.architecture}"


FIRMWARE_OF = {
    0: (Firmware.BIOS, Way.PXE),
    7: (Firmware.UEFI_AMD64, Way.PXE),
    9: (Firmware.UEFI_AMD64, Way.PXE),
    11: (Firmware.UEFI_ARM64, Way.PXE),
    16: (Firmware.UEFI_AMD64, Way.HTTP),
    19: (Firmware.UEFI_ARM64, Way.HTTP),
}
"""By the number of option 93 (RFC 4578, section 2.1, and IANA's list). 7 is EFI byte code on paper, x64 in practice."""


class Answer(StrEnum):
    """What becomes of a machine that starts from the network."""

    INSTALL = "install"
    """It starts the boot image with a ticket: work is due, and the machine is known."""
    KNOCK = "knock"
    """It starts the boot image, which may do no more than ask to be admitted."""
    LOCAL = "local disk"
    """It starts what is on its disk."""
    SILENT = "silent"
    """It is not answered at all, as if this service were not there."""


@dataclass(frozen=True, slots=True)
class Asker:
    """A machine as it shows itself before it has a system. All of it can be forged by anybody on the segment."""

    mac_address: str
    """Of the interface it starts from, such as `52:54:00:98:00:10`."""
    uuids: tuple[UUID, ...]
    """Its SMBIOS UUID in both byte orders that firmware uses; empty if it does not say."""
    firmware: Firmware
    way: Way


@dataclass(frozen=True, slots=True)
class Decision:
    """What a machine is answered."""

    answer: Answer
    token: str = ""
    """The enrolment token that lets the machine ask for admission; with INSTALL and KNOCK."""
    ticket: str = ""
    """What gives it the identity of its record; with INSTALL."""
    reason: str = ""
    """Why, in one line for people."""
    display_name: str = ""
    """What operators call the machine, if it is known."""


def mac_text(address: bytes) -> str:
    """Returns a hardware address as people write it."""
    return ":".join(f"{byte:02x}" for byte in address)
