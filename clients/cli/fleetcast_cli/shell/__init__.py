"""How a command runs, and how values are read and shown."""
