"""Sessions: one image to the machines that join."""
