"""Tokens, and the identities given for them."""
