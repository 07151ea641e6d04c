"""The catalog: image versions, their content, task sequences, and what holds them."""
