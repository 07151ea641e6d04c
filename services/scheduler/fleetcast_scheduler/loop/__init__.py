"""The loop that decides in memory, stores, then acts; and what belongs to it."""
