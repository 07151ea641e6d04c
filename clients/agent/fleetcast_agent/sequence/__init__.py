"""Task sequences on this machine: the engine, its journal, and the steps."""
