"""Stored chunks."""
