"""The embedded default: catalog, scheduler and sender in one process, with their trust."""
