"""Threads and sockets around the engine."""
