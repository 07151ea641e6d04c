"""The state machine of a run, its journal and its runner."""
