"""What every process does: settings, log, telemetry, end."""
