"""Machines and collections."""
