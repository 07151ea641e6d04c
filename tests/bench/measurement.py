"""What one run of one tool gave, and the figures drawn from several."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

GIB = 1 << 30


@dataclass(frozen=True)
class Measurement:
    """One run of one tool."""

    tool: str
    size_bytes: int
    """Size of the file."""
    seconds: float
    """From all receivers joined to the last one done, by the tool's own marks."""
    wall_seconds: float
    """From the sender's start, everything set up, to the last receiver done."""
    sender_cpu_seconds: float
    receiver_cpu_seconds: Sequence[float]
    """Of each receiver's process; of fleetcast's agents from the assignment on, their start is in `extra`."""
    receiver_peak_memory_bytes: Sequence[int]
    wire_bytes: int
    """Bytes of the frames that left the sender."""
    extra: dict[str, float] = field(default_factory=dict)
    """Further figures of a case."""

    @property
    def goodput_bits_per_second(self) -> float:
        """Bits of the file each receiver got per second."""
        return self.size_bytes * 8 / self.seconds

    @property
    def sender_cpu_seconds_per_gib(self) -> float:
        """What the sender used for each GiB of the file."""
        return self.sender_cpu_seconds * GIB / self.size_bytes

    @property
    def receiver_cpu_seconds_per_gib(self) -> float:
        """What one receiver, on average, used for each GiB of the file."""
        return statistics.fmean(self.receiver_cpu_seconds) * GIB / self.size_bytes

    @property
    def peak_memory_bytes(self) -> int:
        """The largest receiver's resident set."""
        return max(self.receiver_peak_memory_bytes)


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of a figure over several runs."""

    median: float
    least: float
    greatest: float
    count: int


def spread(measurements: Sequence[Measurement], figure: Callable[[Measurement], float]) -> Spread:
    """Returns the spread of a figure; there must be at least one measurement."""
    values = [figure(measurement) for measurement in measurements]
    return Spread(statistics.median(values), min(values), max(values), len(values))
