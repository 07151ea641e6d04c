"""One transmission: who may take part, the streams of those who do, and the lanes that serve them."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fleetcast_kit.errors import FleetcastError, PermissionDeniedError, UnavailableError
from fleetcast_kit.process import semconv, telemetry

from fleetcast_sender.chunks.source import ChunkSource, ChunkTable
from fleetcast_sender.engine.geometry_choice import choose_geometry
from fleetcast_sender.engine.messages import Deficits, Dismissed, Holding, Join, Reception, Told, UnicastReason
from fleetcast_sender.engine.policy import SlowAction, SlowPolicy
from fleetcast_sender.engine.rate import RatePolicy
from fleetcast_sender.sending.interfaces import IPAddress
from fleetcast_sender.sending.lane import Egress, Lane
from fleetcast_sender.sending.returns import Returns
from fleetcast_sender.sending.snapshot import Snapshot

_logger = logging.getLogger(__name__)

_GATHER_JOINS_SECONDS = 0.3
"""How long the first receiver waits for the others that were admitted with it: the geometry is to suit them all."""
_ADMISSION_SECONDS = 5.0
_MAX_MESSAGES = 1000


@dataclass(eq=False)
class Seat:
    """One receiver's stream."""

    number: int
    join: Join
    lane: Lane
    messages: asyncio.Queue[tuple[Lane, Told]] = field(default_factory=lambda: asyncio.Queue(_MAX_MESSAGES))
    """What to tell it; a receiver that leaves `_MAX_MESSAGES` unread is dismissed."""


class Transmission:
    """Lives on the event loop; its lanes have threads of their own.

    Args:
        name: `sessions/{session}/transmissions/{id}`.
        table: of the image.
        source: of its chunks.
        egress: where datagrams leave.
        group: leased for it.
        port: leased for it.
        rate: how fast.
        machines: admitted from the start, `machines/{id}` each.
        traceparent: of the session.
    """

    def __init__(
        self,
        name: str,
        *,
        table: ChunkTable,
        source: ChunkSource,
        egress: Egress,
        group: IPAddress,
        port: int,
        rate: RatePolicy,
        machines: Sequence[str],
        traceparent: str,
    ) -> None:
        self.name = name
        self.table = table
        self.source = source
        self.group = group
        self.port = port
        self.error: FleetcastError | None = None
        """Why it failed; None while it can go on."""
        self.unicast_bytes = 0
        """Chunk bytes delivered by unicast."""
        self.rate = rate
        self._egress = egress
        self._loop = asyncio.get_running_loop()
        self._admitted = set(machines)
        self._admission = asyncio.Event()
        self._joins: list[Join] = []
        self._joined = asyncio.Event()
        self._opening: asyncio.Task[Lane] | None = None
        self._lane: Lane | None = None
        self._slow_lane: Lane | None = None
        self._slow_machines: set[str] = set()
        self._away_reasons: dict[str, UnicastReason] = {}
        self._apart: set[str] = set()
        """Machines that are to get everything by unicast."""
        self._returns = Returns(self._invite)
        self._seats: dict[int, Seat] = {}
        self._numbers = itertools.count(1)
        self._span = telemetry.tracer(__name__).start_span(
            "transmission",
            context=telemetry.context_from(traceparent),
            attributes={semconv.TRANSMISSION: name, semconv.GROUP: str(group), semconv.PORT: port},
        )

    @property
    def snapshot(self) -> Snapshot:
        """What it does at present."""
        snapshots = [lane.pump.snapshot for lane in self._lanes]
        return sum(snapshots[1:], start=snapshots[0]) if snapshots else Snapshot()

    @property
    def group_bits_per_second(self) -> int:
        """What its groups are sent now; 0 while no pass runs."""
        return sum(lane.pump.group_bits_per_second for lane in self._lanes)

    @property
    def _lanes(self) -> list[Lane]:
        return [lane for lane in (self._lane, self._slow_lane) if lane]

    def admit(self, machines: Sequence[str]) -> None:
        """Let machines take part."""
        fresh = [machine for machine in machines if machine not in self._admitted]
        self._admitted.update(fresh)
        if self._lane and fresh:
            pump = self._lane.pump
            pump.put(lambda now: pump.engine.expect(fresh, now))
        self._admission.set()
        self._admission = asyncio.Event()

    def dismiss(self, machines: Sequence[str], reason: str) -> None:
        """Take machines out."""
        self._admitted.difference_update(machines)
        for machine in machines:
            self.dismiss_streams(machine, reason)

    def move_to_unicast(self, machines: Sequence[str]) -> None:
        """Serve machines apart from the group from now on: they join again and say what they hold."""
        for machine in machines:
            if machine not in self._apart:
                self._apart.add(machine)
                self.dismiss_streams(machine, "this machine is served by unicast from now on: join again")

    def separate(self, machine: str) -> None:
        """Send a slow machine away; when it joins again it gets into the lane of the slow."""
        self._slow_machines.add(machine)
        self.dismiss_streams(machine, "this machine is slower than the others: join again, in a slower group")

    def dismiss_streams(self, machine: str, reason: str) -> None:
        """End the streams of a machine that stays admitted."""
        for seat in list(self._seats.values()):
            if seat.join.machine == machine:
                self._tell(seat, seat.lane, Dismissed(reason))

    async def require_admission(self, machine: str) -> None:
        """Returns when a machine is admitted: the scheduler's word may come a little later than the machine.

        Raises:
            PermissionDeniedError: it is not.
        """
        deadline = self._loop.time() + _ADMISSION_SECONDS
        while machine not in self._admitted:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._admission.wait()
            except TimeoutError:
                raise PermissionDeniedError(
                    f"{machine} is not admitted to {self.name}: join the session first", reason="NOT_ADMITTED"
                ) from None
        self._raise_if_failed()

    async def enter(self, join: Join) -> Seat:
        """Returns the seat of a machine that is admitted; its welcome follows. A former stream of it is dismissed.

        Raises:
            FleetcastError: the transmission cannot run.
        """
        for seat in list(self._seats.values()):
            if seat.join.machine == join.machine:
                self._tell(seat, seat.lane, Dismissed("this machine has opened another stream"))
                self.leave(seat)
        self._joins.append(join)
        self._joined.set()
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        lane = await asyncio.shield(self._opening)
        self._raise_if_failed()
        if join.machine in self._slow_machines:
            lane = self._slow_lane = self._slow_lane or self._make_slow_lane([join])
        if join.machine in self._apart or self._returns.away(join.machine):
            reason = UnicastReason.OPERATOR if join.machine in self._apart else self._away_reasons[join.machine]
            join = replace(join, unicast_only=True, unicast_reason=reason)
        seat = Seat(next(self._numbers), join, lane)
        self._seats[seat.number] = seat
        lane.pump.put(lambda now: lane.pump.engine.join(seat.number, join, now))
        return seat

    def leave(self, seat: Seat) -> None:
        """Forget a stream that ended."""
        if self._seats.pop(seat.number, None):
            self._vacate(seat.lane, seat.number)

    # What receivers say

    def ready(self, seat: Seat) -> None:
        """The receiver hears the group."""
        seat.lane.pump.ready(seat.number, seat.join)

    def report(self, seat: Seat, reception: Reception) -> None:
        """The receiver's totals."""
        seat.lane.pump.report(seat.number, reception)

    def deficits(self, seat: Seat, deficits: Deficits) -> None:
        """What one window lacks."""
        seat.lane.pump.deficits(seat.number, deficits)

    def holding(self, seat: Seat, holding: Holding) -> None:
        """Everything that the receiver holds."""
        engine = seat.lane.pump.engine
        seat.lane.pump.put(lambda now: engine.holding(seat.number, holding, now))

    def done(self, seat: Seat) -> None:
        """The receiver needs nothing more."""
        pump = seat.lane.pump

        def take(now: float) -> None:
            pump.engine.done(seat.number, now)
            pump.forget(seat.number)

        pump.put(take)

    # Its own life

    def set_rate(self, rate: RatePolicy) -> None:
        """Change how fast it sends."""
        self.rate = rate
        for lane in self._lanes:
            lane.set_rate(rate)

    async def stop(self, reason: str) -> None:
        """End it: tell everybody, close the socket, free the memory."""
        for seat in list(self._seats.values()):
            self._tell(seat, seat.lane, Dismissed(reason))
        self._admitted.clear()
        self._returns.stop()
        if self._opening:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for lane in self._lanes:
            await asyncio.to_thread(lane.stop)
        if self._slow_lane and self._egress.spare_groups:
            self._egress.spare_groups.release(self._slow_lane.group)
        snapshot = self.snapshot
        self._span.set_attribute(semconv.MULTICAST_BYTES, snapshot.source_bytes + snapshot.repair_bytes)
        self._span.set_attribute(semconv.UNICAST_BYTES, self.unicast_bytes)
        self._span.end()

    async def _open(self) -> Lane:
        """Make the lane when the first receivers are known."""
        deadline = self._loop.time() + _GATHER_JOINS_SECONDS
        while len(self._joins) < len(self._admitted):
            self._joined.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._joined.wait()
            except TimeoutError:
                break
        try:
            lane = self._make_lane(self._egress, self.group, self._joins, len(self._admitted))
        except FleetcastError as error:
            self._fail(error)
            raise
        missing = sorted(self._admitted - {join.machine for join in self._joins})
        lane.pump.put(lambda now: lane.pump.engine.expect(missing, now))
        lane.start()
        self._lane = lane
        return lane

    def _make_lane(self, egress: Egress, group: IPAddress, joins: Sequence[Join], receiver_count: int) -> Lane:
        """Returns a lane that is not started.

        Raises:
            FleetcastError: the interface cannot send to the group.
        """
        geometry = choose_geometry(
            joins,
            receiver_count=receiver_count,
            stream_bytes=int(self.table.stored_size_bytes.sum()),
            mtu_bytes=egress.interface.mtu_bytes,
            ip_version=group.version,
            overrides=egress.overrides,
        )
        return Lane(
            egress,
            group,
            self.port,
            geometry=geometry,
            table=self.table,
            source=self.source,
            rate=self.rate,
            deliver=lambda told: self._call(self._dispatch, told),
            failed=lambda error: self._call(self._fail, error),
            slow=lambda number: self._call(self._separate, number),
            apart=lambda number, deaf: self._call(self._note_apart, number, deaf),
            span=self._span,
        )

    def _make_slow_lane(self, joins: Sequence[Join]) -> Lane:
        """Returns a lane of its own for slow receivers, started.

        Raises:
            FleetcastError: there is no group for it.
        """
        if self._egress.spare_groups is None:
            raise UnavailableError(f"{self.name} has no group for slow machines: widen the sender's range of groups")
        # Whoever is slow among the slow bounds them: there is no third lane.
        egress = replace(self._egress, slow=SlowPolicy(SlowAction.KEEP))
        lane = self._make_lane(egress, self._egress.spare_groups.lease(), joins, len(self._slow_machines))
        lane.start()
        _logger.info("%s serves slow machines in group %s", self.name, lane.group)
        return lane

    def _separate(self, number: int) -> None:
        """Send a slow receiver away; when it joins again it gets into the lane of the slow."""
        if seat := self._seats.get(number):
            self._slow_machines.add(seat.join.machine)
            self._tell(
                seat, seat.lane, Dismissed("this machine is slower than the others: join again, in a slower group")
            )

    def _note_apart(self, number: int, deaf: bool) -> None:
        """Let a machine that is served by unicast now try the group again later, and not before."""
        if seat := self._seats.get(number):
            self._away_reasons[seat.join.machine] = UnicastReason.DEAF if deaf else UnicastReason.SLOW
            self._returns.expect(seat.join.machine, soon=deaf)

    def _invite(self, machine: str) -> None:
        """Let a machine try the group again, if it is still here."""
        self.dismiss_streams(machine, "the group is tried again: join again")

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on the loop, from a pump's thread; a loop that is closed needs nothing any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _dispatch(self, told: list[tuple[int, Told]]) -> None:
        for number, message in told:
            if seat := self._seats.get(number):
                self._tell(seat, seat.lane, message)

    def _tell(self, seat: Seat, lane: Lane, told: Told) -> None:
        try:
            seat.messages.put_nowait((lane, told))
        except asyncio.QueueFull:
            _logger.warning("%s leaves its messages unread and is taken out of %s", seat.join.machine, self.name)
            self.leave(seat)

    def _vacate(self, lane: Lane, number: int) -> None:
        pump = lane.pump

        def take(now: float) -> None:
            pump.engine.leave(number, now)
            pump.forget(number)

        pump.put(take)

    def _fail(self, error: FleetcastError) -> None:
        if self.error is None:
            _logger.error("%s cannot go on: %s", self.name, error)
            self.error = error
            self._span.record_exception(error)
            for seat in list(self._seats.values()):
                self._tell(seat, seat.lane, Dismissed(f"the sender cannot go on: {error}"))

    def _raise_if_failed(self) -> None:
        if self.error:
            raise UnavailableError(f"{self.name} cannot go on: {self.error}") from self.error
