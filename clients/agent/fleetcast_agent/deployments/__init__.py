"""This machine's part in deployments."""
