"""This machine's part in deployments: it registers, waits for work, runs it, and says how it went."""
