"""`fleetcast session`."""
