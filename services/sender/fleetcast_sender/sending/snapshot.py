"""What a transmission does at present, for other threads to read."""

from dataclasses import dataclass


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
        )
