"""Names of the attributes, metrics and spans that fleetcast adds to OpenTelemetry's own."""

from typing import Final

# Attributes: resource names.
IMAGE: Final = "fleetcast.image"
SESSION: Final = "fleetcast.session"
TRANSMISSION: Final = "fleetcast.transmission"
DEPLOYMENT: Final = "fleetcast.deployment"
MACHINE: Final = "fleetcast.machine"
SENDER: Final = "fleetcast.sender"
CALLER: Final = "fleetcast.caller"
TASK_SEQUENCE: Final = "fleetcast.task_sequence"
STEP: Final = "fleetcast.step"

# Attributes: values.
STEP_TYPE: Final = "fleetcast.step.type"
ATTEMPT: Final = "fleetcast.attempt"
OUTCOME: Final = "fleetcast.outcome"
CALLER_ROLE: Final = "fleetcast.caller.role"
ERROR_REASON: Final = "fleetcast.error.reason"
PASS: Final = "fleetcast.pass"
GROUP: Final = "fleetcast.group"
PORT: Final = "fleetcast.port"
STATE: Final = "fleetcast.state"
SIZE_BYTES: Final = "fleetcast.size_bytes"
CHUNK_COUNT: Final = "fleetcast.chunk_count"
FORMAT: Final = "fleetcast.format"
STORED_BYTES: Final = "fleetcast.stored_bytes"
ADDED_BYTES: Final = "fleetcast.added_bytes"
DAMAGED_CHUNK_COUNT: Final = "fleetcast.damaged_chunk_count"
MULTICAST_BYTES: Final = "fleetcast.multicast_bytes"
UNICAST_BYTES: Final = "fleetcast.unicast_bytes"

# Metrics.
SENT_DATAGRAMS: Final = "fleetcast.sent_datagrams"
ENROLMENTS: Final = "fleetcast.enrolments"
