"""`fleetcast deploy` and `fleetcast deployment`."""
