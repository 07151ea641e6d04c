"""What is known of each foreign format: how it is recognised, and which tool turns it into a raw image."""
