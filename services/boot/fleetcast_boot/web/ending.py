"""Ends a connection so that nothing of it lasts.

After a restart of its machine GRUB begins its connections from the same port with the same sequence number as before. A
server that still has the earlier connection, if only to wait for its end, takes the new one for a part of it, and the
machine waits in vain. So a connection ends by a reset, once the machine has acknowledged everything.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct

_SIOCOUTQ = 0x5411
"""How many bytes the other side has not acknowledged (tcp(7))."""

_PAUSE_SECONDS = 0.01
_LONGEST_SECONDS = 30.0
"""A machine that acknowledges nothing for so long is gone."""


async def end_by_reset(transport: asyncio.Transport) -> None:
    """Waits until everything that was written has been acknowledged, and ends the connection by a reset."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return
    waited = 0.0
    while (transport.get_write_buffer_size() or _unacknowledged_bytes(sock)) and waited < _LONGEST_SECONDS:
        await asyncio.sleep(_PAUSE_SECONDS)
        waited += _PAUSE_SECONDS
        if transport.is_closing():
            return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unacknowledged_bytes(sock: socket.socket) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))
    return int(count)
