"""Times of day on a clock, and recurrences: pure."""
