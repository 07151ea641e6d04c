"""`fleetcast image`."""
