"""DHCP messages, and what is answered to machines that ask what to start."""

import contextlib
import struct
from dataclasses import replace
from ipaddress import IPv4Address
from uuid import UUID

import pytest
from fleetcast_boot.dhcp.answer import PXE_PORT, SERVER_PORT, Loaders, answer, asker_of, destination
from fleetcast_boot.dhcp.message import DhcpMessage, MessageType, Operation, Option, pack, unpack
from fleetcast_boot.domain import Firmware, Way
from fleetcast_boot.errors import DhcpError
from hypothesis import given
from hypothesis import strategies as st

MAC = bytes.fromhex("525400980010")
UUID_BYTES = bytes.fromhex("0d0c0b0a00000040800000000000ab10")
LOADERS = Loaders(IPv4Address("10.98.0.2"), 7480, {Firmware.BIOS: "fleetcast.0", Firmware.UEFI_AMD64: "shimx64.efi"})


def question(
    architecture: int = 7,
    vendor_class: bytes = b"PXEClient:Arch:00007:UNDI:003000",
    kind: int = MessageType.DISCOVER,
    **changes: object,
) -> DhcpMessage:
    options: dict[int, bytes] = {
        Option.MESSAGE_TYPE: bytes([kind]),
        Option.VENDOR_CLASS: vendor_class,
        Option.ARCHITECTURE: struct.pack("!H", architecture),
        Option.MACHINE_ID: b"\0" + UUID_BYTES,
    }
    message = DhcpMessage(Operation.REQUEST, 0x1234, MAC, flags=0x8000, options=options)
    return replace(message, **changes)  # type: ignore[arg-type]


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
messages = st.builds(
    DhcpMessage,
    operation=st.integers(0, 255),
    transaction=st.integers(0, 2**32 - 1),
    hardware_address=st.binary(max_size=16),
    hardware_type=st.integers(0, 255),
    flags=st.integers(0, 65_535),
    seconds=st.integers(0, 65_535),
    hops=st.integers(0, 255),
    client_address=addresses,
    your_address=addresses,
    server_address=addresses,
    relay_address=addresses,
    server_name=st.binary(max_size=63).map(lambda text: text.replace(b"\0", b"")),
    boot_file=st.binary(max_size=127).map(lambda text: text.replace(b"\0", b"")),
    options=st.dictionaries(
        st.integers(1, 254).filter(lambda code: code != Option.OVERLOAD), st.binary(max_size=600), max_size=8
    ),
)


@given(messages)
def test_a_message_survives_its_packing(message: DhcpMessage) -> None:
    assert unpack(pack(message)) == message


@given(st.binary(max_size=700) | messages.map(pack).flatmap(lambda whole: st.integers(0, 299).map(lambda n: whole[:n])))
def test_no_datagram_raises_anything_but_its_own_error(datagram: bytes) -> None:
    with contextlib.suppress(DhcpError):
        unpack(datagram)


def test_options_in_the_fields_of_the_names_are_read() -> None:
    """Firmware with many options puts some of them where the names stand (option 52)."""
    plain = bytearray(pack(question()))
    file_options = bytes([Option.USER_CLASS, 4]) + b"iPXE" + b"\xff"
    plain[108 : 108 + len(file_options)] = file_options
    options = plain[240:].replace(b"\xff", bytes([Option.OVERLOAD, 1, 1, 255]), 1)
    message = unpack(bytes(plain[:240] + options))
    assert message.options[Option.USER_CLASS] == b"iPXE"
    assert message.boot_file == b""


@pytest.mark.parametrize(
    ("architecture", "vendor_class", "firmware", "way", "file"),
    [
        (0, b"PXEClient:Arch:00000:UNDI:002001", Firmware.BIOS, Way.PXE, b"fleetcast.0"),
        (7, b"PXEClient:Arch:00007:UNDI:003000", Firmware.UEFI_AMD64, Way.PXE, b"shimx64.efi"),
        (9, b"PXEClient:Arch:00009:UNDI:003000", Firmware.UEFI_AMD64, Way.PXE, b"shimx64.efi"),
        (16, b"HTTPClient:Arch:00016:UNDI:003001", Firmware.UEFI_AMD64, Way.HTTP, b"http://10.98.0.2:7480/shimx64.efi"),
    ],
)
def test_each_kind_of_firmware_gets_its_loader_in_its_way(
    architecture: int, vendor_class: bytes, firmware: Firmware, way: Way, file: bytes
) -> None:
    asked = unpack(pack(question(architecture, vendor_class)))
    asker = asker_of(asked, SERVER_PORT)
    assert asker is not None
    assert (asker.firmware, asker.way, asker.mac_address) == (firmware, way, "52:54:00:98:00:10")
    assert UUID("0a0b0c0d-0000-4000-8000-00000000ab10") in asker.uuids
    reply = answer(asked, asker, LOADERS)
    assert reply is not None
    assert (reply.operation, reply.transaction, reply.hardware_address) == (Operation.REPLY, 0x1234, MAC)
    assert reply.options[Option.MESSAGE_TYPE] == bytes([MessageType.OFFER])
    assert reply.options[Option.BOOT_FILE] == file
    assert reply.options[Option.SERVER] == IPv4Address("10.98.0.2").packed
    assert reply.options[Option.VENDOR_CLASS] == (b"PXEClient" if way is Way.PXE else b"HTTPClient")
    assert reply.options[Option.MACHINE_ID] == b"\0" + UUID_BYTES
    assert (Option.VENDOR_SPECIFIC in reply.options) == (way is Way.PXE)
    assert reply.your_address == IPv4Address(0), "addresses are given by the site's own DHCP server"


@pytest.mark.parametrize(
    "asked",
    [
        question(kind=MessageType.REQUEST),
        question(operation=Operation.REPLY),
        question(vendor_class=b"MSFT 5.0"),
        question(vendor_class=b"HTTPClient:Arch:00007"),
        question(architecture=2),
        question(hardware_type=6),
        question(hardware_address=b"\1\2\3"),
        question(options={}),
    ],
    ids=["a request at 67", "a reply", "no boot client", "another way", "Itanium", "token ring", "short", "no options"],
)
def test_who_does_not_ask_what_to_start_is_not_answered(asked: DhcpMessage) -> None:
    assert asker_of(asked, SERVER_PORT) is None


def test_a_request_at_the_port_of_pxe_is_acknowledged_to_where_it_came_from() -> None:
    asked = question(kind=MessageType.REQUEST)
    asker = asker_of(asked, PXE_PORT)
    assert asker is not None
    reply = answer(asked, asker, LOADERS)
    assert reply is not None
    assert reply.options[Option.MESSAGE_TYPE] == bytes([MessageType.ACK])
    assert destination(asked, ("10.98.0.101", 4011), PXE_PORT) == ("10.98.0.101", 4011)


def test_firmware_without_a_loader_is_not_answered() -> None:
    asked = question(architecture=11, vendor_class=b"PXEClient:Arch:00011:UNDI:003000")
    asker = asker_of(asked, SERVER_PORT)
    assert asker is not None
    assert answer(asked, asker, LOADERS) is None


def test_an_answer_goes_by_the_relay_to_the_address_or_to_all() -> None:
    everywhere = ("0.0.0.0", 68)  # noqa: S104 - where a machine without an address asks from
    assert destination(question(), everywhere, SERVER_PORT) == ("255.255.255.255", 68)
    relayed = question(relay_address=IPv4Address("10.9.0.1"))
    assert destination(relayed, ("10.9.0.1", 67), SERVER_PORT) == ("10.9.0.1", 67)
    addressed = question(client_address=IPv4Address("10.98.0.7"))
    assert destination(addressed, ("10.98.0.7", 68), SERVER_PORT) == ("10.98.0.7", 68)


@pytest.mark.parametrize("machine_id", [b"", b"\0" + bytes(16), b"\0" + b"\xff" * 16, b"\1" + UUID_BYTES, b"\0short"])
def test_a_machine_without_a_uuid_has_none(machine_id: bytes) -> None:
    asked = question()
    asker = asker_of(replace(asked, options={**asked.options, Option.MACHINE_ID: machine_id}), SERVER_PORT)
    assert asker is not None
    assert asker.uuids == ()
