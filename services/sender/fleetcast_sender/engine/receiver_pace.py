"""How one receiver keeps pace with what is sent: drawn from its reports of the last half second. Pure."""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from fleetcast_sender.engine.messages import Reception

_SPAN_SECONDS = 0.5
"""One report alone says little: threads and streams delay it by tens of milliseconds, now more, now less."""
_LEAST_SECONDS = 0.12
_LEAST_PACKETS = 200
_RECENT_SECONDS = 0.15
_TELLING_REPORTS = 4
_STANDSTILL_SECONDS = 0.5
"""A receiver that takes and writes nothing for so long is not waited for."""
_LAG_SHARE = 0.6
"""Of a receiver's socket buffer that may be filled: its size counts what the kernel adds to each datagram, too."""
_CERTAIN_SHARE = 0.8
"""Of a receiver's socket buffer that what was sent beyond its last report may fill: nearly all that really fits."""
_DELAY_SECONDS = 0.1
"""How much older than its interval a report may be when the next one comes, on a busy host."""
_LEAST_BUFFER_BYTES = 8 << 20
"""Taken for receivers with smaller buffers too: those tell by overflow."""
_BACKLOG_BEGINS, _BACKLOG_ENDS = 0.3, 0.45
"""Of the memory for windows, waiting to be written. From the first on less and less may be under way, from the second
nothing: a ring that runs over loses whole windows."""


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    sent: int
    reception: Reception

    @property
    def lag(self) -> int:
        return max(self.sent - 1 - self.reception.highest_packet_counter, 0)


@dataclass
class ReceiverPace:
    """Takes one receiver's reports; every figure is over the samples kept, the last half second or two reports."""

    window_memory_bytes: int = 0
    receive_buffer_bytes: int = 0
    tolerated_loss: float = 0.0
    """Loss that was found not to depend on the rate."""
    slow_since: float | None = None
    fresh: bool = False
    """Whether it reported since the last update of the rate."""
    best_per_second: float = 0.0
    """Datagrams that it took a second in its best half second, which is forgotten by a tenth each second."""
    _progress: tuple[int, int] = (-2, 0)
    _progressed_at: float = 0.0
    _samples: deque[_Sample] = field(default_factory=deque)
    _loss: float = 0.0
    _known: bool = False

    def take(self, reception: Reception, sent: int, now: float) -> None:
        """Take a report; `sent` is the packet counter of the next datagram."""
        samples = self._samples
        samples.append(_Sample(now, sent, reception))
        while len(samples) > 2 and now - samples[1].at >= _SPAN_SECONDS:
            samples.popleft()
        self.fresh = True
        elapsed = now - samples[-2].at if len(samples) > 1 else 0.0
        self.best_per_second = max(self.best_per_second * 0.9**elapsed, self.delivered_per_second)
        progress = reception.highest_packet_counter, reception.written_bytes
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now
        heard = reception.highest_packet_counter - samples[0].reception.highest_packet_counter
        if heard >= _LEAST_PACKETS:
            count = reception.datagram_count - samples[0].reception.datagram_count
            self._loss, self._known = min(max(1 - count / heard, 0.0), 1.0), True

    def restart(self) -> None:
        """Forget all but the last report: what comes now is due to another rate."""
        while len(self._samples) > 1:
            self._samples.popleft()

    @property
    def seconds(self) -> float:
        """What the samples span."""
        return self._samples[-1].at - self._samples[0].at if self._samples else 0.0

    @property
    def telling(self) -> bool:
        """Whether the samples are enough to judge by."""
        return self.seconds >= _LEAST_SECONDS and self.sent_packets >= _LEAST_PACKETS

    @property
    def sent_packets(self) -> int:
        """Datagrams sent in the span."""
        return self._samples[-1].sent - self._samples[0].sent if self._samples else 0

    @property
    def reported_at(self) -> float:
        """When it reported last."""
        return self._samples[-1].at if self._samples else 0.0

    @property
    def delivered_share(self) -> float:
        """By how much its highest counter advanced, as a share of what was sent: below 1 while it falls behind."""
        first, last = self._samples[0].reception, self._samples[-1].reception
        return max(last.highest_packet_counter - first.highest_packet_counter, 0) / max(self.sent_packets, 1)

    @property
    def delivered_per_second(self) -> float:
        """Datagrams that it takes a second, those lost not counted."""
        return self.delivered_share * self.sent_packets / max(self.seconds, 1e-3) * (1 - self._loss)

    @property
    def written_per_second(self) -> float:
        """Content bytes that it writes a second."""
        first, last = self._samples[0].reception, self._samples[-1].reception
        return max(last.written_bytes - first.written_bytes, 0) / max(self.seconds, 1e-3)

    @property
    def loss(self) -> float | None:
        """Share of datagrams lost on the way or by the host; None while too few were sent."""
        return self._loss if self._known else None

    @property
    def overflow_share(self) -> float:
        """Share of datagrams that the host's own buffer dropped."""
        first, last = self._samples[0].reception, self._samples[-1].reception
        return max(last.overflow_datagram_count - first.overflow_datagram_count, 0) / max(self.sent_packets, 1)

    @property
    def dropped_windows(self) -> int:
        """Windows given up because the ring was full."""
        return self._samples[-1].reception.dropped_window_count - self._samples[0].reception.dropped_window_count

    @property
    def backlog_share(self) -> float:
        """What waits to be written, as a share of the memory for windows."""
        if not self.window_memory_bytes or not self._samples:
            return 0.0
        return self._samples[-1].reception.backlog_bytes / self.window_memory_bytes

    @property
    def lag_packets(self) -> int:
        """By how many datagrams its last report was behind."""
        return self._samples[-1].lag if self._samples else 0

    @property
    def recent_per_second(self) -> float:
        """Datagrams that it took a second lately, those lost not counted."""
        return self._recent_progress_per_second * (1 - self._loss)

    @property
    def _recent_progress_per_second(self) -> float:
        last = self._samples[-1]
        first = next((it for it in reversed(self._samples) if last.at - it.at >= _RECENT_SECONDS), self._samples[0])
        progress = last.reception.highest_packet_counter - first.reception.highest_packet_counter
        return max(progress, 0) / max(last.at - first.at, _RECENT_SECONDS / 2)

    def stands_still(self, now: float, interval_seconds: float) -> bool:
        """Returns whether it took and wrote nothing for so long that the others go on without it."""
        return now - self._progressed_at > _STANDSTILL_SECONDS + 1.5 * interval_seconds

    def limit(self, now: float, datagram_bytes: int, interval_seconds: float) -> float:
        """Returns the packet counter up to which may be sent now without overrunning it.

        It is taken to go on as it did since its last report; infinite when it stands still.
        """
        if self.stands_still(now, interval_seconds):
            return math.inf
        free_share = (_BACKLOG_ENDS - self.backlog_share) / (_BACKLOG_ENDS - _BACKLOG_BEGINS)
        buffer_packets = self._buffer_packets(datagram_bytes)
        probable = self._taken(now, interval_seconds) + _LAG_SHARE * buffer_packets * min(max(free_share, 0.0), 1.0)
        # Where reports come often enough, no more than fits may be under way even if it took nothing since the last.
        between_reports = self._recent_progress_per_second * (1.5 * interval_seconds + _DELAY_SECONDS)
        return min(probable, self._progress[0] + max(_CERTAIN_SHARE * buffer_packets, between_reports))

    def strain(self, sent: int, now: float, datagram_bytes: int, interval_seconds: float) -> float:
        """Returns how much of what it can keep waiting does wait: 0 keeps up with ease, 1 is its limit."""
        lag = sent - self._taken(now, interval_seconds)
        return max(lag / (_LAG_SHARE * self._buffer_packets(datagram_bytes)), self.backlog_share / _BACKLOG_ENDS)

    def _taken(self, now: float, interval_seconds: float) -> float:
        """Returns the packet counter where it probably is now, had it gone on as it did lately.

        Delays of threads and streams only make a report older than it looks, so the one that says most is the truest.
        """
        rate, longest = self._recent_progress_per_second, _RECENT_SECONDS + 1.5 * interval_seconds
        return max(
            it.reception.highest_packet_counter + rate * min(now - it.at, longest)
            for it in islice(reversed(self._samples), _TELLING_REPORTS)
        )

    def _buffer_packets(self, datagram_bytes: int) -> float:
        return max(self.receive_buffer_bytes, _LEAST_BUFFER_BYTES) / datagram_bytes
