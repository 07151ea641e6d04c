"""The thread that empties the socket. It never waits for anything else: others hear of what came by events."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from fleetcast_agent.receiving.multicast.reception.events import Event
from fleetcast_agent.receiving.multicast.reception.reception import Reception
from fleetcast_agent.receiving.multicast.sockets.datagrams import GroupSocket
from fleetcast_agent.receiving.multicast.sockets.readers import BATCH_DATAGRAMS

_logger = logging.getLogger(__name__)

_LEAST_GATHER_SECONDS, _MOST_GATHER_SECONDS, _MOST_REPAIR_GATHER_SECONDS = 0.0005, 0.024, 0.012
"""A batch costs 0.1 ms whatever its size, more on a busy host, so the thread sleeps between reads until most of a batch
is there; for less long while losses are repaired: the sender gathers reports for 30 ms."""
_BUFFER_SHARE = 8
"""So much of the socket's buffer at most is filled meanwhile, counting what the kernel adds to each datagram."""
_WAIT_SECONDS = 0.02
_NICENESS = -5
_DRAIN_SECONDS = 0.005
"""The socket counts as empty when nothing genuine came for so long: words over TCP overtake datagrams in flight."""
_MOST_DRAIN_SECONDS = 0.4
"""So long that is waited for: the group may go on without this machine, and its sender plans after half a second."""


def _go_first() -> None:
    """Prefer this thread to others where the system lets us: it does little, and what it misses is sent again."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class Listener:
    """Feeds a reception from a socket until stopped.

    Args:
        handle: called on the listener's thread with what has happened; must not block.
        stride: bytes of a slot.
    """

    def __init__(
        self, source: GroupSocket, reception: Reception, handle: Callable[[list[Event]], None], *, stride: int
    ) -> None:
        self._source = source
        self._reception = reception
        self._handle = handle
        self._enough = max(1, min(BATCH_DATAGRAMS * 3 // 4, source.receive_buffer_bytes // (_BUFFER_SHARE * stride)))
        self._inbox: deque[Callable[[], None]] = deque()
        self._when_drained: deque[tuple[float, Callable[[], None]]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._waiting = False
        self._stopping = False
        self.failure: Exception | None = None
        """What ended the thread, if it was not `stop`."""
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def post(self, action: Callable[[], None], *, when_drained: bool = False, wake: bool = True) -> None:
        """Run an action on the listener's thread, at once or when what was sent before has been taken.

        Without `wake` it runs when the thread wakes anyway, within hundredths of a second: waking it costs both sides.
        """
        if when_drained:
            self._when_drained.append((time.monotonic() + _MOST_DRAIN_SECONDS, action))
        else:
            self._inbox.append(action)
        if wake and self._waiting:
            self._wake()

    def stop(self) -> None:
        """End the thread and close the socket. Actions that were posted and did not run are dropped."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._source.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def forget(self) -> None:
        """Drop what was posted to a stopped thread, and with it the windows that it names."""
        self._inbox.clear()
        self._when_drained.clear()

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"\0")
        except OSError:  # full: it is awake, or closed: it has ended
            return

    def _run(self) -> None:
        _go_first()
        try:
            self._receive()
        except Exception as error:
            _logger.exception("receiving ended with a defect")
            self.failure = error

    def _receive(self) -> None:
        reception, inbox = self._reception, self._inbox
        heard_at = read_at = time.monotonic()
        genuine_count = 0
        rate = 0.0  # datagrams per second, smoothed
        while not self._stopping:
            filled, others = self._source.receive(reception.run)
            now = time.monotonic()
            count = len(filled) + reception.take_opened(now)
            if len(filled):
                reception.receive(filled, now)
            for datagram in others:
                reception.receive_other(datagram, now)
            if genuine_count != reception.counts.datagram_count:
                genuine_count, heard_at = reception.counts.datagram_count, now
            while inbox:
                inbox.popleft()()
            if self._when_drained and (now - heard_at > _DRAIN_SECONDS or now > self._when_drained[0][0]):
                self._when_drained.popleft()[1]()
            if events := reception.take_events():
                self._handle(events)
            if not count and not others:
                self._wait()
                read_at = time.monotonic()
                continue
            rate += 0.2 * (count / max(now - read_at, 1e-4) - rate)
            read_at = now
            if self._source.drained and count < self._enough:
                most = _MOST_REPAIR_GATHER_SECONDS if reception.repairing else _MOST_GATHER_SECONDS
                time.sleep(min(max(_LEAST_GATHER_SECONDS, self._enough / max(rate, 1.0)), most))

    def _wait(self) -> None:
        self._waiting = True
        seconds = _DRAIN_SECONDS if self._when_drained else _WAIT_SECONDS
        if not self._inbox:
            ready, _, _ = select.select([self._source.fileno(), self._wake_reader.fileno()], [], [], seconds)
            if self._wake_reader.fileno() in ready:
                self._wake_reader.recv(4096)
        self._waiting = False
