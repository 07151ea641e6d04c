"""A task sequence as text: the file with its places, the canonical form, the JSON schema."""
