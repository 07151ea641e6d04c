"""A lane: one group, one port, one set of keys, one engine. A transmission has one; slow receivers may get a second."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast_kit.errors import FleetcastError
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.packet import datagram_bytes
from opentelemetry.trace import Span

from fleetcast_sender import convert
from fleetcast_sender.chunks.source import ChunkSource, ChunkTable
from fleetcast_sender.engine.engine import Engine
from fleetcast_sender.engine.geometry_choice import GeometryOverrides
from fleetcast_sender.engine.messages import Planned, Told, Welcomed
from fleetcast_sender.engine.policy import SlowPolicy, TransmissionPolicy
from fleetcast_sender.engine.rate import RateController, RatePolicy
from fleetcast_sender.sending.groups import SpareGroups
from fleetcast_sender.sending.hearing import HearingPolicy
from fleetcast_sender.sending.interfaces import Interface, IPAddress
from fleetcast_sender.sending.link import Link
from fleetcast_sender.sending.pump import Pump
from fleetcast_sender.sending.sockets import GroupSocket
from fleetcast_sender.sending.windows import WindowMemory

_MAX_SLOTS, _MIN_SLOTS = 8, 3
_SEND_BUFFER_BYTES = 256 << 10
"""What the kernel may queue, which it doubles: eight trains, so that sealing and sending overlap. 4 ms at 1 Gbit/s;
more would be dropped by queues that keep delays short, as CoDel's from 5 ms on, or that are short."""


@dataclass(frozen=True)
class Egress:
    """How transmissions leave this host."""

    interface: Interface
    link: Link
    ttl: int = 1
    loop: bool = False
    segmentation: bool = True
    memory_bytes: int = 512 << 20
    """What one lane may keep of windows."""
    policy: TransmissionPolicy = field(default_factory=TransmissionPolicy)
    slow: SlowPolicy = field(default_factory=SlowPolicy)
    overrides: GeometryOverrides = field(default_factory=GeometryOverrides)
    hearing: HearingPolicy = field(default_factory=HearingPolicy)
    spare_groups: SpareGroups | None = None
    """For lanes of slow receivers."""


class Lane:
    """Runs from its making to `stop`.

    Raises:
        FailedPreconditionError: the interface cannot send to the group.
    """

    def __init__(
        self,
        egress: Egress,
        group: IPAddress,
        port: int,
        *,
        geometry: Geometry,
        table: ChunkTable,
        source: ChunkSource,
        rate: RatePolicy,
        deliver: Callable[[list[tuple[int, Told]]], None],
        failed: Callable[[FleetcastError], None],
        slow: Callable[[int], None],
        apart: Callable[[int, bool], None],
        span: Span,
    ) -> None:
        self.group = group
        self.port = port
        self.geometry = geometry
        self.keys = SenderKeys.fresh()
        self._plan: tuple[Planned, transmission_service_pb2.ReceiveResponse] | None = None
        payload = datagram_bytes(geometry.symbol_bytes)
        overhead = 28 if group.version == 4 else 48
        link = egress.link.bits_per_second or egress.interface.link_bits_per_second
        socket = GroupSocket(
            group,
            port,
            egress.interface,
            ttl=egress.ttl,
            loop=egress.loop,
            datagram_bytes=payload,
            segmentation=egress.segmentation,
            send_buffer_bytes=_SEND_BUFFER_BYTES,
        )
        self.source_address = socket.source_address
        slots = min(max(egress.memory_bytes // geometry.window_bytes, _MIN_SLOTS), _MAX_SLOTS)
        self.pump = Pump(
            Engine(geometry, table.stored_size_bytes, egress.policy, window_slots=slots),
            RateController(rate, link_bits_per_second=link, datagram_bits=(payload + overhead) * 8),
            WindowMemory(geometry, source),
            keys=self.keys,
            socket=socket,
            link=egress.link,
            slow_policy=egress.slow,
            wire_overhead_bytes=overhead,
            deliver=deliver,
            failed=failed,
            slow=slow,
            apart=apart,
            hearing=egress.hearing,
            span=span,
        )

    def start(self) -> None:
        """Begin to send when somebody is there to receive."""
        self.pump.start()

    def message(self, told: Told) -> transmission_service_pb2.ReceiveResponse:
        """Returns what a receiver is told; the same plan goes to many and is packed once."""
        if isinstance(told, Welcomed):
            return self._welcome(told)
        if isinstance(told, Planned):
            if self._plan is None or self._plan[0] is not told:
                self._plan = told, convert.told_message(told)
            return self._plan[1]
        return convert.told_message(told)

    def set_rate(self, rate: RatePolicy) -> None:
        """Change the rate, running or not."""
        self.pump.controller.policy = rate

    def stop(self) -> None:
        """End and release everything. Blocks shortly."""
        self.pump.stop()

    def _welcome(self, welcomed: Welcomed) -> transmission_service_pb2.ReceiveResponse:
        """Returns the answer to a join, with the keys."""
        return convert.welcome_message(
            welcomed, self.keys, group=str(self.group), port=self.port, source_address=self.source_address
        )
