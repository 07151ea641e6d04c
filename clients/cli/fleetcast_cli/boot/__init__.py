"""`fleetcast boot`."""
