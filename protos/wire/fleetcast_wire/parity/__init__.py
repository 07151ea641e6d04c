"""Parity symbols: the finite field, and the code over it that rebuilds lost symbols."""
