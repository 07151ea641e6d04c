"""The step types that ship with fleetcast: their arguments, and what happens when one is interrupted."""
