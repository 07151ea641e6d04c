"""The rules of sessions. Pure."""
