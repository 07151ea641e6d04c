"""Reading from a socket straight into the slots of an opener, many datagrams a call.

Linux coalesces a train of datagrams into one message (UDP_GRO), and `recvmmsg`, which Python lacks, reads many messages
at once, trains or single datagrams; where that does not exist, one read is one datagram.
"""

from __future__ import annotations

import ctypes
import math
import socket
import sys
from dataclasses import dataclass

import numpy as np
from fleetcast_kit.network.batched_messages import BatchedMessage, IoVector, MessageHeader
from fleetcast_wire.memory import Numbers
from fleetcast_wire.native import Messages, NativeMessages, NativeRun
from numpy.typing import NDArray

UDP_GRO = (17, 104)
"""Level and name of the option, and of the control message that tells the size of a train's datagrams."""
_TRAIN_BYTES = 65535
BATCH_DATAGRAMS = 4224
"""Datagrams taken at once: enough to spread the cost of a batch, which is most of what eight on two cores wait for."""


@dataclass(frozen=True)
class ReadingMethod:
    """How datagrams are taken from a socket: the fastest way that this system has, unless something else is said."""

    batched: bool = sys.platform == "linux"
    """Many messages a call, by `recvmmsg`."""
    compiled: bool = True
    """By the loop in C, where it was built."""
    coalescing_option: tuple[int, int] = UDP_GRO
    """Level and name of the socket option by which the kernel joins datagrams to trains."""
    judged_after_count: int = 2048
    """Datagrams after which coalescing is given up where trains are short."""


FASTEST = ReadingMethod()

Received = tuple[Numbers, list[bytes]]
"""The slots that were filled with datagrams of the size of a slot, in their order, but for those that a run has opened;
and all other datagrams."""

_CONTROL = np.dtype(
    {
        "names": ["length", "level", "kind", "value"],
        "formats": [np.uintp, "i4", "i4", "i4"],
        "offsets": [0, np.uintp().nbytes, np.uintp().nbytes + 4, np.uintp().nbytes + 8],
        "itemsize": 3 * 8 if np.uintp().nbytes == 8 else 16,
    }
)
"""`struct cmsghdr` with one int."""


def train_slots(stride: int) -> int:
    """Returns how many slots of `stride` bytes have room for any train."""
    return -(-_TRAIN_BYTES // stride)


class BatchReader:
    """Reads one message into each room.

    Args:
        source: a non-blocking UDP socket.
        buffer: the slots, end to end.
        stride: bytes of a slot.
        room_slots: slots of a room, whose first ones a message fills.
        compiled: read by the loop in C, where it was built.
    """

    def __init__(
        self, source: socket.socket, buffer: memoryview, stride: int, room_slots: int = 1, *, compiled: bool = True
    ) -> None:
        self._socket, self._buffer, self._stride = source, buffer, stride
        room_bytes = self._room_bytes = room_slots * stride
        self._rooms = rooms = len(buffer) // room_bytes
        if not rooms:
            raise ValueError(f"a buffer of {len(buffer)} bytes has no room of {room_bytes}")
        base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self._vectors = (IoVector * rooms)(*(IoVector(base + room * room_bytes, room_bytes) for room in range(rooms)))
        self._controls = np.zeros(rooms, _CONTROL)
        messages = (BatchedMessage * rooms)()
        for room, (message, vector) in enumerate(zip(messages, self._vectors, strict=True)):
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1
            message.header.control = self._controls.ctypes.data + room * _CONTROL.itemsize
        self._receive = _best_receiver(messages, self._controls, room_slots, stride, compiled=compiled)
        self._expected = float(room_slots)  # datagrams in a message, lately
        self.drained = True
        """Whether the last call took all there was."""
        self.message_count = 0
        self.datagram_count = 0
        """Of the size of a slot."""

    def read(self, run: NativeRun | None) -> Received:
        """Returns what has come, as much as has room, without waiting; the slots are valid until the next call."""
        most = min(self._rooms, math.ceil(BATCH_DATAGRAMS / self._expected))
        came = self._receive(self._socket.fileno(), most, run)
        self.drained = not came.more
        if came.message_count > 0:
            datagrams = len(came.slots) + (run.opened_count if run else 0)
            self.message_count += came.message_count
            self.datagram_count += datagrams
            self._expected += 0.2 * (max(1.0, datagrams / came.message_count) - self._expected)
        return came.slots, [datagram for it in came.others for datagram in self._cut(*it)]

    @property
    def mean_train(self) -> float:
        """Datagrams in a message, on average so far."""
        return max(1.0, self.datagram_count / max(1, self.message_count))

    def _cut(self, room: int, full: int, length: int, size: int) -> list[bytes]:
        """Returns the datagrams of a message after its first `full`, which have the size of a slot."""
        start, size = room * self._room_bytes, max(1, size)
        return [
            bytes(self._buffer[at : min(at + size, start + length)])
            for at in range(start + full * self._stride, start + length, size)
        ]


def _best_receiver(
    messages: ctypes.Array[BatchedMessage],
    controls: NDArray[np.void],
    room_slots: int,
    stride: int,
    *,
    compiled: bool,
) -> NativeMessages | _PortableMessages:
    if compiled:
        try:
            return NativeMessages(messages, controls.itemsize, room_slots, stride)
        except OSError:
            pass  # it was not built here
    return _PortableMessages(messages, controls, room_slots, stride)


class _PortableMessages:
    """Does what `NativeMessages` does where that was not built."""

    def __init__(
        self, messages: ctypes.Array[BatchedMessage], controls: NDArray[np.void], room_slots: int, stride: int
    ) -> None:
        self._messages, self._controls, self._stride = messages, controls, stride
        layout = np.dtype(
            {
                "names": ["control_length", "flags", "length"],
                "formats": [np.uintp, "i4", "u4"],
                "offsets": [
                    MessageHeader.control_length.offset,
                    MessageHeader.flags.offset,
                    BatchedMessage.length.offset,
                ],
                "itemsize": ctypes.sizeof(BatchedMessage),
            }
        )
        results = np.frombuffer(memoryview(messages).cast("B"), layout)
        self._control_lengths, self._flags, self._lengths = (
            results[name] for name in ("control_length", "flags", "length")
        )
        self._receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._slots = np.arange(len(messages) * room_slots, dtype=np.int64).reshape(-1, room_slots)
        self._steps = np.arange(room_slots)

    def __call__(self, descriptor: int, most: int, run: NativeRun | None) -> Messages:
        """See `NativeMessages`. Nothing of a run is opened here."""
        self._control_lengths[:] = _CONTROL.itemsize
        count = max(0, self._receive(descriptor, self._messages, most, socket.MSG_DONTWAIT, None))
        lengths, controls = self._lengths[:count].astype(np.int64), self._controls[:count]
        level, kind = UDP_GRO
        told = (self._control_lengths[:count] > 0) & (controls["level"] == level) & (controls["kind"] == kind)
        sizes = np.where(told, controls["value"], lengths)
        full = lengths // self._stride
        full[(sizes != self._stride) | (self._flags[:count] & socket.MSG_TRUNC != 0)] = 0
        rooms = (full * self._stride != lengths).nonzero()[0]
        rest = np.stack((rooms, full[rooms], lengths[rooms], sizes[rooms]), axis=1).tolist()
        return Messages(count, count == most, self._slots[:count][self._steps < full[:, np.newaxis]], rest)


class TrainReader(BatchReader):
    """Reads one train into each room: of a socket with the option UDP_GRO."""

    def __init__(self, source: socket.socket, buffer: memoryview, stride: int, *, compiled: bool = True) -> None:
        super().__init__(source, buffer, stride, train_slots(stride), compiled=compiled)


class SingleReader:
    """Reads one datagram a call, as every system can."""

    def __init__(self, source: socket.socket, buffer: memoryview, stride: int) -> None:
        self._socket = source
        # One byte more than a slot, to tell a longer datagram from one that fits.
        self._rooms = [buffer[at : at + stride + 1] for at in range(0, len(buffer) - stride, stride)]
        self._stride = stride
        self._slots = np.arange(len(self._rooms), dtype=np.int64)

    mean_train = 1.0
    drained = True

    def read(self, run: NativeRun | None) -> Received:
        """See `BatchReader.read`. Nothing of a run is opened here."""
        filled, others = 0, list[bytes]()
        while filled < len(self._rooms) and len(others) < len(self._rooms):
            try:
                length = self._socket.recv_into(self._rooms[filled])
            except BlockingIOError:
                break
            except OSError:  # Windows says so when a datagram is longer than its room: none of ours
                others.append(b"")
                continue
            if length == self._stride:
                filled += 1
            else:
                others.append(bytes(self._rooms[filled][:length]))
        return self._slots[:filled], others
