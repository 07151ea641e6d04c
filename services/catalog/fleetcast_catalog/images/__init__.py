"""Image versions and their chunks."""
