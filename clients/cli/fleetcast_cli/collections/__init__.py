"""`fleetcast collection`."""
