"""Serving and calling."""
