"""The scheduler: machines, sessions, admission, progress, senders."""
