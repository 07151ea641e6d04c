"""TFTP as far as starting from the network needs it: packets, and a transfer. Pure."""
