"""`fleetcast machine`."""
