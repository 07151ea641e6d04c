"""One file on its way to one machine: sans-IO, with `now` as a parameter."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcast_boot.errors import TftpError
from fleetcast_boot.tftp.packet import (
    Failure,
    ReadRequest,
    pack_data,
    pack_options,
    unpack_reply,
)

MAX_BLOCK_BYTES = 1428
"""1,500 bytes of Ethernet without the headers of IPv6, UDP, TFTP and a tunnel: firmware cannot join fragments."""

MAX_WINDOW_BLOCKS = 16
"""23 kB on their way at once: more overflows the receive queue of small firmware."""

_DEFAULT_BLOCK_BYTES = 512
_MIN_BLOCK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Timing:
    """How long is waited for an acknowledgement, in seconds."""

    first: float = 0.5
    longest: float = 4.0
    """Each silence doubles the time, up to this."""
    tries: int = 7
    """0.5 + 1 + 2 + 4 x 4 = 19.5 s of silence end a transfer."""


class Transfer:
    """Sends a file in windows of blocks, each acknowledged once."""

    def __init__(self, content: bytes, request: ReadRequest, now: float, timing: Timing | None = None) -> None:
        self._content = memoryview(content)
        self._timing = timing or Timing()
        self._options = _accepted(request, len(content))
        self._block_bytes = self._options.get("blksize", _DEFAULT_BLOCK_BYTES)
        self._window = self._options.get("windowsize", 1)
        self._last = len(content) // self._block_bytes + 1
        self._acknowledged = -1 if self._options else 0
        """The last block that the machine has; -1 until it has taken the options."""
        self._sent = self._acknowledged
        self._repeated = False
        """Whether the window under way was sent again because the machine asked."""
        self._silences = 0
        self._wait = self._timing.first
        self.wake_at = now
        """When `wake` is due, in the caller's seconds."""
        self.done = False
        """Whether the machine has everything."""
        self.failure = ""
        """Why the transfer ended without that; empty as long as it goes on."""

    @property
    def over(self) -> bool:
        """Whether nothing more will be sent."""
        return self.done or bool(self.failure)

    @property
    def held_bytes(self) -> int:
        """How much of the file the machine has."""
        return min(max(self._acknowledged, 0) * self._block_bytes, len(self._content))

    def begin(self, now: float) -> list[bytes]:
        """Returns the first datagrams."""
        return self._send(now)

    def wake(self, now: float) -> list[bytes]:
        """Returns what is sent again because nothing came."""
        if self.over or now < self.wake_at:
            return []
        self._silences += 1
        if self._silences >= self._timing.tries:
            self.failure = f"the machine fell silent after {self.held_bytes} of {len(self._content)} bytes"
            return []
        self._wait = min(2 * self._wait, self._timing.longest)
        return self._send(now)

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        """Takes what came from the machine. Returns what is sent next."""
        if self.over:
            return []
        try:
            reply = unpack_reply(datagram)
        except TftpError:
            return []
        if isinstance(reply, Failure):
            self.failure = f"the machine gave up: {reply.message or 'no reason'} (error {reply.code})"
            return []
        block = self._block_of(reply.block)
        if block is None:
            return []
        if block == self._acknowledged:
            # The first block of the window was lost (RFC 7440, section 4); or an acknowledgement came twice, and to
            # answer both would double everything up to the end of the file. So: once for each window.
            if self._window == 1 or self._repeated or self._sent == self._acknowledged:
                return []
            self._repeated = True
            return self._send(now)
        self._acknowledged = block
        self._silences, self._wait, self._repeated = 0, self._timing.first, False
        if block == self._last:
            self.done = True
            return []
        return self._send(now)

    def _block_of(self, number: int) -> int | None:
        """Returns which block an acknowledgement means, of those that can be meant; None if of none."""
        low = self._acknowledged
        if low < 0:
            return 0 if number == 0 else None
        block = low + ((number - low) & 0xFFFF)
        return block if block <= self._sent else None

    def _send(self, now: float) -> list[bytes]:
        self.wake_at = now + self._wait
        if self._acknowledged < 0:
            return [pack_options(self._options)]
        first = self._acknowledged + 1
        self._sent = min(self._acknowledged + self._window, self._last)
        size = self._block_bytes
        return [
            pack_data(block, self._content[(block - 1) * size : block * size]) for block in range(first, self._sent + 1)
        ]


def _accepted(request: ReadRequest, size_bytes: int) -> dict[str, int]:
    """Returns the options that are taken, with the values that hold (RFC 2348, 2349 and 7440)."""
    accepted: dict[str, int] = {}
    for name, value in request.options.items():
        if name == "blksize" and value >= _MIN_BLOCK_BYTES:
            accepted[name] = min(value, MAX_BLOCK_BYTES)
        elif name == "tsize":
            accepted[name] = size_bytes
        elif name == "windowsize" and value >= 1:
            accepted[name] = min(value, MAX_WINDOW_BLOCKS)
        elif name == "timeout" and 1 <= value <= 255:
            accepted[name] = value
    return accepted
