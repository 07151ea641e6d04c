"""The shared runtime of every fleetcast process: server, channel, trust, errors, telemetry, settings, database."""
