"""Names of the attributes, metrics and spans that fleetcast adds to OpenTelemetry's own."""

from typing import Final

# Attributes: resource names.
IMAGE: Final = "fleetcast.image"
SESSION: Final = "fleetcast.session"
TRANSMISSION: Final = "fleetcast.transmission"
MACHINE: Final = "fleetcast.machine"
SENDER: Final = "fleetcast.sender"
CALLER: Final = "fleetcast.caller"
ENROLMENT_TOKEN: Final = "fleetcast.enrolment_token"

# Attributes: values.
CALLER_ROLE: Final = "fleetcast.caller.role"
ERROR_REASON: Final = "fleetcast.error.reason"
PASS: Final = "fleetcast.pass"
GROUP: Final = "fleetcast.group"
PORT: Final = "fleetcast.port"
STATE: Final = "fleetcast.state"
SIZE_BYTES: Final = "fleetcast.size_bytes"
CHUNK_COUNT: Final = "fleetcast.chunk_count"
CHUNK_SIZE_BYTES: Final = "fleetcast.chunk_size_bytes"
FORMAT: Final = "fleetcast.format"
STORED_BYTES: Final = "fleetcast.stored_bytes"
ADDED_BYTES: Final = "fleetcast.added_bytes"
DAMAGED_CHUNK_COUNT: Final = "fleetcast.damaged_chunk_count"
MULTICAST_BYTES: Final = "fleetcast.multicast_bytes"
UNICAST_BYTES: Final = "fleetcast.unicast_bytes"
RATE_BITS_PER_SECOND: Final = "fleetcast.rate_bits_per_second"

# Metrics.
SENT_BYTES: Final = "fleetcast.sent_bytes"
SENT_DATAGRAMS: Final = "fleetcast.sent_datagrams"
RECEIVED_BYTES: Final = "fleetcast.received_bytes"
RECEIVED_DATAGRAMS: Final = "fleetcast.received_datagrams"
LOST_DATAGRAMS: Final = "fleetcast.lost_datagrams"
OVERFLOW_DATAGRAMS: Final = "fleetcast.overflow_datagrams"
REJECTED_DATAGRAMS: Final = "fleetcast.rejected_datagrams"
WRITTEN_BYTES: Final = "fleetcast.written_bytes"
DAMAGED_CHUNKS: Final = "fleetcast.damaged_chunks"
ENROLMENTS: Final = "fleetcast.enrolments"
