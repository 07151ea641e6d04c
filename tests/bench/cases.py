"""The cases: networks, and what is asked of fleetcast in each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.bench.measurement import Measurement, spread
from tests.support.loss import Loss
from tests.support.lossy import Bursts

OURS, UDPCAST, UFTP, BARE = "fleetcast", "udpcast", "uftp", "bare"

GIGABIT = 1_000_000_000
PAYLOAD_SHARE = 1408 / (1408 + 24 + 16 + 8 + 20 + 14)
"""Share of a frame (symbol, header, seal, UDP, IPv4, Ethernet; as the link's rate counts) that is image."""

Results = Mapping[tuple[str, str], Sequence[Measurement]]
"""Measurements by case and tool."""


class Disturbance(Enum):
    """What happens to the last receiver, or to all."""

    NONE = "none"
    DEAD = "stopped for ever at half"
    SLOW_DISK = "a disk of 20 MB/s"
    LATE = "joins at half"
    HOSTILE = "a host that injects 10,000 datagrams/s"
    STAGGERED = "the machines are switched on one after the other"


@dataclass(frozen=True)
class Case:
    """One network, and the tools that are measured in it."""

    name: str
    title: str
    receiver_count: int
    tools: Sequence[str]
    rate_bits_per_second: int | None = None
    loss: Loss | None = None
    """Of every receiver, with a seed of its own."""
    agent_flags: tuple[str, ...] = ()
    disturbance: Disturbance = Disturbance.NONE
    only_for_plots: bool = False
    gap_seconds: float = 0.0
    """Between one receiver's start and the next one's, if they are staggered."""


_PEERS = (OURS, UDPCAST, UFTP)
_PEERS_UNDER_LOSS = (OURS, UFTP)
"""At 1 % loss a receiver of udpcast gives up, at 5 % one does not end."""
_ONE_IN_100, _FIVE_IN_100 = Loss(fraction=0.01), Loss(fraction=0.05)
_BURSTS = Loss(bursts=Bursts(fraction=0.01, mean_length=20))

CASES = (
    Case("receivers-1", "1 receiver, no limit", 1, (*_PEERS, BARE), only_for_plots=True),
    Case("receivers-2", "2 receivers, no limit", 2, (*_PEERS, BARE)),
    Case("receivers-4", "4 receivers, no limit", 4, (*_PEERS, BARE), only_for_plots=True),
    Case("receivers-8", "8 receivers, no limit", 8, (*_PEERS, BARE)),
    Case("link-4", "1 Gbit/s, 4 receivers", 4, _PEERS, GIGABIT),
    Case("loss-0", "1 Gbit/s, 3 receivers", 3, _PEERS, GIGABIT, only_for_plots=True),
    Case("loss-1", "1 Gbit/s, 3 receivers, 1 % loss", 3, _PEERS_UNDER_LOSS, GIGABIT, _ONE_IN_100),
    Case("loss-5", "1 Gbit/s, 3 receivers, 5 % loss", 3, _PEERS_UNDER_LOSS, GIGABIT, _FIVE_IN_100),
    Case("bursts-1", "1 Gbit/s, 3 receivers, 1 % loss in bursts of 20", 3, _PEERS_UNDER_LOSS, GIGABIT, _BURSTS),
    Case("memory-4", "1 Gbit/s, 4 receivers, 128 MiB", 4, (OURS,), GIGABIT, agent_flags=("--memory", "128MiB")),
    Case("dead-4", "1 Gbit/s, 4 receivers, one dead", 4, (OURS,), GIGABIT, disturbance=Disturbance.DEAD),
    Case("slow-4", "1 Gbit/s, 4 receivers, one slow", 4, (OURS,), GIGABIT, disturbance=Disturbance.SLOW_DISK),
    Case("late-4", "1 Gbit/s, 4 receivers, one late", 4, (OURS,), GIGABIT, disturbance=Disturbance.LATE),
    Case("hostile-4", "1 Gbit/s, 4 receivers, a hostile host", 4, (OURS,), GIGABIT, disturbance=Disturbance.HOSTILE),
    Case("together-8", "1 Gbit/s, 8 receivers together", 8, (OURS,), GIGABIT),
    Case(
        "staggered-8",
        "1 Gbit/s, 8 receivers 2 s apart",
        8,
        (OURS,),
        GIGABIT,
        disturbance=Disturbance.STAGGERED,
        gap_seconds=2.0,
    ),
)


@dataclass(frozen=True)
class Target:
    """A figure with what it must and what it should reach."""

    title: str
    unit: str
    must: float
    aim: float
    value: float
    at_most: bool = False
    """True if less is better."""

    @property
    def verdict(self) -> str:
        """`aim`, `must` or `missed`."""
        sign = -1 if self.at_most else 1
        if sign * self.value >= sign * self.aim:
            return "aim"
        return "must" if sign * self.value >= sign * self.must else "missed"


def targets(results: Results) -> list[Target]:
    """Returns every target for which there are measurements."""
    ratios = [
        ("receivers-8", UDPCAST, 2.5, 4.0),
        ("receivers-8", UFTP, 2.5, 4.0),
        ("receivers-2", UDPCAST, 3.0, 5.0),
        ("receivers-2", BARE, 0.25, 0.40),
    ]
    shares = [
        ("link-4", 0.97, 0.99),
        ("loss-1", 0.93, 0.95),
        ("loss-5", 0.86, 0.89),
        ("bursts-1", 0.90, 0.94),
    ]
    found = []
    for case, other, must, aim in ratios:
        ours, theirs = results.get((case, OURS)), results.get((case, other))
        if ours and theirs:
            value = _goodput(ours) / _goodput(theirs)
            found.append(Target(f"{_title(case)}: goodput against {other}", "times", must, aim, value))
    for case, must, aim in shares:
        if ours := results.get((case, OURS)):
            value = _goodput(ours) / (GIGABIT * PAYLOAD_SHARE)
            found.append(Target(f"{_title(case)}: share of the highest payload rate", "", must, aim, value))
    return found + _costs(results)


def _costs(results: Results) -> list[Target]:
    found = []
    for case, must, aim in (("link-4", 2.5, 1.5), ("loss-1", 5.0, 3.0)):
        if ours := results.get((case, OURS)):
            value = spread(ours, lambda run: run.receiver_cpu_seconds_per_gib).median
            found.append(Target(f"{_title(case)}: agent CPU per GiB", "s", must, aim, value, at_most=True))
    if ours := results.get(("receivers-8", OURS)):
        value = spread(ours, lambda run: run.sender_cpu_seconds_per_gib).median
        found.append(Target(f"{_title('receivers-8')}: sender CPU per GiB", "s", 2.0, 1.2, value, at_most=True))
    everything = [run for runs in results.values() for run in runs if run.tool == OURS]
    for title, must, chosen in (
        ("all cases: agent peak memory", 450, everything),
        (f"{_title('memory-4')}: agent peak memory", 200, results.get(("memory-4", OURS))),
    ):
        if chosen:
            peak = max(run.peak_memory_bytes for run in chosen) / 1e6
            found.append(Target(title, "MB", must, must, peak, at_most=True))
    return found + _delays(results)


def _delays(results: Results) -> list[Target]:
    """Returns what a disturbed receiver costs the others."""
    calm = results.get(("link-4", OURS))
    dead, slow, late, hostile = (results.get((case, OURS)) for case in ("dead-4", "slow-4", "late-4", "hostile-4"))
    found = []
    if calm and dead:
        value = _others(dead) - _others(calm)
        found.append(Target(f"{_title('dead-4')}: the others later", "s", 5.0, 1.0, value, at_most=True))
    if calm and slow:
        value = (_others(slow) / _others(calm) - 1) * 100
        found.append(Target(f"{_title('slow-4')}: the others later", "%", 5.0, 1.0, value, at_most=True))
    if late:
        value = spread(late, lambda run: run.extra["needless_chunks"]).greatest
        found.append(
            Target(f"{_title('late-4')}: chunks sent again that nobody missed", "", 0.0, 0.0, value, at_most=True)
        )
    if calm and hostile:
        value = (1 - _goodput(hostile) / _goodput(calm)) * 100
        found.append(Target(f"{_title('hostile-4')}: loss of goodput", "%", 10.0, 1.0, value, at_most=True))
    return found + _staggered(results)


def _staggered(results: Results) -> list[Target]:
    """Returns what machines that come one after the other cost, against the same machines together."""
    together, staggered = results.get(("together-8", OURS)), results.get(("staggered-8", OURS))
    if not together or not staggered:
        return []
    # A carousel sends from the first arrival until one copy after the last.
    copies = spread(staggered, lambda run: run.extra["carousel_copies"]).median
    sent = spread(staggered, lambda run: run.wire_bytes).median / spread(together, lambda run: run.wire_bytes).median
    last = spread(staggered, lambda run: run.extra["last_machine_seconds"]).median
    alone = spread(together, lambda run: run.seconds).median
    title = _title("staggered-8")
    return [
        Target(f"{title}: bytes on the wire, against a carousel's", "times", 1.3, 1.15, sent / copies, at_most=True),
        Target(
            f"{title}: the last machine, against one of those together", "times", 1.4, 1.2, last / alone, at_most=True
        ),
    ]


def _others(runs: Sequence[Measurement]) -> float:
    return spread(runs, lambda run: run.extra["undisturbed_seconds"]).median


def _goodput(runs: Sequence[Measurement]) -> float:
    return spread(runs, lambda run: run.goodput_bits_per_second).median


def _title(name: str) -> str:
    return next(case.title for case in CASES if case.name == name)
