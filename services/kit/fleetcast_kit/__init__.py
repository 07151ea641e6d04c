"""The shared runtime of every fleetcast process: server, channel, trust, errors, telemetry, settings, database."""

import os

# gRPC's core writes lines of its own to standard error; what they say reaches us as exceptions and statuses.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
