"""One image onto one target."""
