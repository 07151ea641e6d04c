"""Task sequence versions."""
