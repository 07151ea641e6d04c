"""TFTP: requests, and transfers over links that lose, double and reorder."""

import contextlib
import random
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from fleetcast_boot.errors import TftpError
from fleetcast_boot.tftp.packet import ReadRequest, unpack_reply, unpack_request
from fleetcast_boot.tftp.transfer import MAX_BLOCK_BYTES, MAX_WINDOW_BLOCKS, Timing, Transfer
from hypothesis import given
from hypothesis import strategies as st


def request(path: bytes = b"shimx64.efi", mode: bytes = b"octet", **options: int) -> bytes:
    words = [path, mode, *(part for name, value in options.items() for part in (name.encode(), str(value).encode()))]
    return b"\0\1" + b"".join(word + b"\0" for word in words)


@given(st.binary(max_size=600))
def test_no_packet_raises_anything_but_its_own_error(datagram: bytes) -> None:
    for unpack in (unpack_request, unpack_reply):
        with contextlib.suppress(TftpError):
            unpack(datagram)


@pytest.mark.parametrize("path", [b"shimx64.efi", b"/shimx64.efi", b"//shimx64.efi", b"\\shimx64.efi"])
def test_firmware_writes_paths_in_many_ways(path: bytes) -> None:
    assert unpack_request(request(path, b"OCTET", BLKSIZE=1468)) == ReadRequest("shimx64.efi", {"blksize": 1468})


@pytest.mark.parametrize(
    ("datagram", "code"),
    [(b"\0\2x\0octet\0", 2), (b"\0\1x\0netascii\0", 4), (b"\0\1x\0octet", 4), (b"\0\7", 4), (b"\0", 4), (b"\0\1", 4)],
)
def test_what_is_no_request_to_read_is_refused_with_its_code(datagram: bytes, code: int) -> None:
    with pytest.raises(TftpError) as refused:
        unpack_request(datagram)
    assert refused.value.code == code


class Client:
    """Fetches a file as firmware does: it acknowledges the last block in order when a window is whole or has a gap."""

    def __init__(self, options: Mapping[str, int]) -> None:
        self.block_bytes, self.window = 512, 1
        self.expects_options = bool(options)
        self.content = b""
        self.block = 0
        self.in_window = 0
        self.complete = False

    def receive(self, datagram: bytes) -> list[bytes]:
        operation, number = struct.unpack("!HH", datagram[:4])
        if operation == 6:
            words = datagram[2:-1].split(b"\0")
            taken = {name.decode(): int(value) for name, value in zip(words[::2], words[1::2], strict=True)}
            self.block_bytes = taken.get("blksize", 512)
            self.window = taken.get("windowsize", 1)
            return [struct.pack("!HH", 4, 0)] if not self.block else []
        if operation != 3:
            return []
        if number != (self.block + 1) & 0xFFFF:
            self.in_window = 0
            return [struct.pack("!HH", 4, self.block & 0xFFFF)]
        self.block += 1
        self.in_window += 1
        self.content += datagram[4:]
        self.complete = len(datagram) - 4 < self.block_bytes
        if self.complete or self.in_window >= self.window:
            self.in_window = 0
            return [struct.pack("!HH", 4, self.block & 0xFFFF)]
        return []


def carry(
    content: bytes, options: Mapping[str, int], seed: int = 0, loss: float = 0.0, doubled: float = 0.0
) -> tuple[Client, Transfer, int]:
    """Returns both sides after a transfer over a link with faults, and the blocks that were sent."""
    chance = random.Random(seed)
    client = Client(options)
    transfer = Transfer(content, ReadRequest("f", options), 0.0, Timing())
    now, sent = 0.0, 0
    to_client = transfer.begin(now)
    for _ in range(200_000):
        if transfer.over:
            break
        to_server: list[bytes] = []
        for datagram in to_client:
            sent += 1
            for _ in range(0 if chance.random() < loss else 2 if chance.random() < doubled else 1):
                to_server += client.receive(datagram)
        to_client = []
        for datagram in to_server:
            for _ in range(0 if chance.random() < loss else 2 if chance.random() < doubled else 1):
                to_client += transfer.receive(datagram, now)
        if not to_client:
            now = max(now, transfer.wake_at)
            to_client = transfer.wake(now)
    return client, transfer, sent


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1428, 3 * 1428, 100_000])
@pytest.mark.parametrize("options", [{}, {"blksize": 1428}, {"blksize": 1428, "windowsize": 4, "tsize": 0}])
def test_a_file_arrives_whole(size: int, options: Mapping[str, int]) -> None:
    content = random.Random(size).randbytes(size)
    client, transfer, sent = carry(content, options)
    assert client.content == content
    assert client.complete
    assert transfer.done
    assert transfer.held_bytes == size
    assert sent == size // options.get("blksize", 512) + 1 + bool(options), "nothing is sent twice on a sound link"


@given(
    size=st.integers(0, 60_000),
    block_bytes=st.integers(8, 2_000),
    window=st.integers(1, 40),
    link=st.fixed_dictionaries(
        {"seed": st.integers(0, 2**32), "loss": st.floats(0, 0.1), "doubled": st.floats(0, 0.2)}
    ),
)
def test_a_file_arrives_whole_over_any_link(size: int, block_bytes: int, window: int, link: dict[str, Any]) -> None:
    content = random.Random(size).randbytes(size)
    client, transfer, _ = carry(content, {"blksize": max(block_bytes, size // 500), "windowsize": window}, **link)
    if transfer.failure:
        assert "fell silent" in transfer.failure  # the last acknowledgement may be lost as often as there are tries
    else:
        assert client.content == content


def test_more_than_65535_blocks_are_counted_on() -> None:
    content = bytes(70_000 * 8)
    client, transfer, _ = carry(content, {"blksize": 8, "windowsize": 16})
    assert transfer.done
    assert client.content == content


def test_a_doubled_acknowledgement_doubles_nothing_more() -> None:
    _, transfer, sent = carry(bytes(51_200), {}, seed=3, doubled=1.0)
    assert transfer.done
    assert sent == 101


def test_a_silent_machine_is_given_up_after_twenty_seconds() -> None:
    transfer = Transfer(b"x", ReadRequest("f", {}), 0.0)
    transfer.begin(0.0)
    now = 0.0
    while not transfer.over:
        now = transfer.wake_at
        transfer.wake(now)
    assert now == pytest.approx(19.5)
    assert transfer.failure == "the machine fell silent after 0 of 1 bytes"


def test_options_are_held_within_bounds() -> None:
    transfer = Transfer(b"", ReadRequest("f", {"blksize": 65_464, "windowsize": 65_535, "timeout": 0, "odd": 1}), 0.0)
    (taken,) = transfer.begin(0.0)
    assert taken == f"\0\6blksize\0{MAX_BLOCK_BYTES}\0windowsize\0{MAX_WINDOW_BLOCKS}\0".encode()


def test_a_machine_that_gives_up_ends_the_transfer_with_its_words() -> None:
    transfer = Transfer(b"", ReadRequest("f", {}), 0.0)
    transfer.begin(0.0)
    assert transfer.receive(b"\0\5\0\0User aborted the transfer\0", 0.1) == []
    assert "User aborted the transfer" in transfer.failure


@given(st.integers(0, 65_535))
def test_no_acknowledgement_of_what_was_not_sent_counts(number: int) -> None:
    transfer = Transfer(bytes(5_000), ReadRequest("f", {}), 0.0)
    transfer.begin(0.0)
    transfer.receive(struct.pack("!HH", 4, number), 0.0)
    assert transfer.held_bytes == (512 if number == 1 else 0)
