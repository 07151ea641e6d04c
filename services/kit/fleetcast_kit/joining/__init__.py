"""How a process gets its identity."""
