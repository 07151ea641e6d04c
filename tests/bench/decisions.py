"""How long the scheduler thinks: `python -m tests.bench.decisions [--sessions N] [--senders N] [--machines N]`.

The rules alone, without network and database: a start, the assignment of late machines, the move of a dead sender's
sessions. A decision is everything between an event and the messages and commands that follow from it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

from fleetcast_scheduler.senders.domain.commands import CommandIssued
from fleetcast_scheduler.senders.domain.sender import Registration
from fleetcast_scheduler.sessions.domain.dispatcher import Dispatcher
from fleetcast_scheduler.sessions.domain.participant import Joiner
from fleetcast_scheduler.sessions.domain.session import Session, SessionMode
from fleetcast_scheduler.sessions.domain.start_rules import StartRules

_NOW = 1_800_000_000.0
_IMAGE = "images/bench@sha256:" + "0" * 64


@dataclass(frozen=True)
class Figures:
    """Milliseconds, of so many decisions."""

    session_count: int
    sender_count: int
    machine_count: int
    starts: int
    start_median_milliseconds: float
    start_p99_milliseconds: float
    assignments: int
    assignment_median_milliseconds: float
    assignment_p99_milliseconds: float
    moves: int
    """Sessions that a sender's death moved, all in one decision."""
    move_milliseconds: float


class Bench:
    """One dispatcher, senders that answer at once, and a clock that is set by hand."""

    def __init__(self, sender_count: int) -> None:
        self.dispatcher = Dispatcher()
        self.now = _NOW
        self.epochs = {f"senders/{number:02}": 0 for number in range(sender_count)}
        for number, name in enumerate(self.epochs):
            offer = Registration(
                address=f"192.0.2.{number + 1}:7443",
                first_group=f"239.192.{number}.0",
                last_group=f"239.192.{number}.255",
                first_port=64000,
                last_port=64255,
                max_concurrent=32,
                subnets=(f"10.{number}.0.0/16",),
            )
            self.epochs[name] = self.dispatcher.register_sender(name, offer, (), self.now)
        self.settle()

    def settle(self) -> None:
        """Decides, and has the senders answer everything, until nothing is left."""
        while True:
            self.dispatcher.settle(self.now)
            commands = [event for event in self.dispatcher.take_events() if isinstance(event, CommandIssued)]
            if not commands:
                return
            for issued in commands:
                self.dispatcher.answer_command(issued.sender, issued.command, "", self.now)

    def join(self, session: str, numbers: range) -> None:
        """Machines of one subnet join."""
        for number in numbers:
            machine, address = f"machines/{session[9:]}-{number}", f"10.{int(session[9:]) % 20}.{number // 250}.1"
            self.dispatcher.join(session, Joiner(machine=machine, address=address), self.now)

    def decide(self, session: str, numbers: range) -> None:
        """Machines join, and everything follows."""
        self.join(session, numbers)
        self.settle()


def measure(session_count: int, sender_count: int, machine_count: int) -> Figures:
    """Returns the figures of so many sessions with so many machines each."""
    bench = Bench(sender_count)
    names = [f"sessions/{number}" for number in range(session_count)]
    for name in names:
        rules = StartRules(min_clients=machine_count)
        bench.dispatcher.add(
            Session(
                name=name,
                image=_IMAGE,
                image_size_bytes=1 << 33,
                mode=SessionMode.SCHEDULED,
                create_time=bench.now,
                rules=rules,
            )
        )
        bench.join(name, range(machine_count - 1))
    bench.settle()

    def decisions(numbers: range) -> Iterator[float]:
        for name in names:
            yield _milliseconds(partial(bench.decide, name, numbers))

    starts = list(decisions(range(machine_count - 1, machine_count)))
    assignments = list(decisions(range(machine_count, machine_count + 1)))
    pool = bench.dispatcher.pool
    dead = next(iter(bench.epochs))
    moved = [one for one in pool.transmissions.values() if one.sender == dead and one.state.live]
    bench.dispatcher.disconnect_sender(dead, bench.epochs[dead], bench.now)
    bench.settle()
    bench.now += bench.dispatcher.timing.sender_grace
    move = _milliseconds(bench.settle)
    present = sum(one.state.live for one in pool.transmissions.values())
    assert present == session_count, f"{present} of {session_count} sessions have a transmission"
    return Figures(
        session_count=session_count,
        sender_count=sender_count,
        machine_count=machine_count,
        starts=len(starts),
        start_median_milliseconds=round(median(starts), 3),
        start_p99_milliseconds=round(sorted(starts)[len(starts) * 99 // 100], 3),
        assignments=len(assignments),
        assignment_median_milliseconds=round(median(assignments), 3),
        assignment_p99_milliseconds=round(sorted(assignments)[len(assignments) * 99 // 100], 3),
        moves=len(moved),
        move_milliseconds=round(move, 3),
    )


def _milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def main() -> int:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.decisions", description=__doc__)
    parser.add_argument("--sessions", type=int, default=200, metavar="N")
    parser.add_argument("--senders", type=int, default=20, metavar="N")
    parser.add_argument("--machines", type=int, default=50, metavar="N", help="in each session")
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.sessions, arguments.senders, arguments.machines)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
