"""The shared runtime of every fleetcast process: server, channel, trust, errors, telemetry, settings, database."""

import os

# gRPC's core writes lines of its own to standard error; what they say reaches us as exceptions and statuses.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# gRPC's own resolver asks the name server even for names in the hosts file: where none answers, as in a network without
# a way out, each first call took 14 s. The system's resolver does not.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
# numpy's linear algebra, which nothing here uses, would begin with a thread for every processor, busy for 0.1 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
