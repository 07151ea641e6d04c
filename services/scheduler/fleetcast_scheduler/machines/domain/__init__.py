"""The rules of machines and collections. Pure."""
