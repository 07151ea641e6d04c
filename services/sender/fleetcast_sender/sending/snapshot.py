"""What a transmission does at present, for other threads to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleetcast_sender.engine.messages import UnicastReason


@dataclass(frozen=True)
class Snapshot:
    """What a lane does, for other threads to read."""

    sending: bool = False
    """False when nobody that is heard lacks anything."""
    pass_number: int = 0
    source_bytes: int = 0
    repair_bytes: int = 0
    chunk_count: int = 0
    rate_bits_per_second: int = 0
    member_count: int = 0
    participant_count: int = 0
    unicast_machines: Mapping[UnicastReason, Sequence[str]] = field(default_factory=dict)
    """Those that get chunks by unicast now, `machines/{id}`, by the reason."""

    def __add__(self, other: "Snapshot") -> "Snapshot":
        """Returns what two lanes do together; the pass is that of the first."""
        return Snapshot(
            self.sending or other.sending,
            self.pass_number,
            self.source_bytes + other.source_bytes,
            self.repair_bytes + other.repair_bytes,
            self.chunk_count + other.chunk_count,
            self.rate_bits_per_second + other.rate_bits_per_second,
            self.member_count + other.member_count,
            self.participant_count + other.participant_count,
            {
                reason: [*self.unicast_machines.get(reason, ()), *other.unicast_machines.get(reason, ())]
                for reason in UnicastReason
                if reason in self.unicast_machines or reason in other.unicast_machines
            },
        )
