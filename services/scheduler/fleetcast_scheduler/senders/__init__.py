"""Senders and the transmissions they run."""
