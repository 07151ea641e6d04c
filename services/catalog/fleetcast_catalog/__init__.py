"""The catalog: image versions, their content, and who needs them."""
