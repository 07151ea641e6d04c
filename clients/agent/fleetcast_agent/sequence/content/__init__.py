"""Where images and packages come from."""
