"""What is held of an image, and where it is written."""
