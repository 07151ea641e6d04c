"""The scheduler's rules. Pure: `now` (seconds since the epoch, UTC) goes in, events come out; no clock, no I/O."""
