"""How one receiver keeps pace with what is sent: drawn from its reports of the last half second. Pure."""

from collections import deque
from dataclasses import dataclass, field

from .messages import Reception

_SPAN_SECONDS = 0.5
"""One report alone says little: threads and streams delay it by tens of milliseconds, now more, now less."""
_LEAST_SECONDS = 0.12
_LEAST_PACKETS = 200
_STANDING_REPORTS = 4


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
        progress = reception.highest_packet_counter - samples[0].reception.highest_packet_counter
        if progress >= _LEAST_PACKETS:
            count = reception.datagram_count - samples[0].reception.datagram_count
            self._loss, self._known = min(max(1 - count / progress, 0.0), 1.0), True

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
    def standing_packets(self) -> int:
        """By how many datagrams it has been behind at least in the last reports: what waits in queues and its buffer.

        Delays of threads and streams only add to a lag, so the least is the truest.
        """
        return min((sample.lag for sample in list(self._samples)[-_STANDING_REPORTS:]), default=0)

    @property
    def draining(self) -> bool:
        """Whether it catches up: what stands in its buffer is due to an earlier rate."""
        return len(self._samples) > 1 and self._samples[-1].lag < 0.97 * self._samples[0].lag

    @property
    def recent_per_second(self) -> float:
        """Datagrams that it took a second lately, over the last few reports."""
        first, last = self._samples[max(-4, -len(self._samples))], self._samples[-1]
        progress = last.reception.highest_packet_counter - first.reception.highest_packet_counter
        return max(progress, 0) * (1 - self._loss) / max(last.at - first.at, 1e-3)
