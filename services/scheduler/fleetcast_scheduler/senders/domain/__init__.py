"""The rules of senders. Pure."""
