"""The rules of starting from the network. Pure."""
