"""`fleetcast task-sequence`."""
