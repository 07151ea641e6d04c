"""Where stored chunks come from."""
