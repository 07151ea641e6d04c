"""The fleetcast command: everything an operator does."""
