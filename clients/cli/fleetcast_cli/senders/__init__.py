"""`fleetcast sender`."""
