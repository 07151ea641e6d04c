"""DHCP as far as starting from the network needs it: messages, and what is answered. Pure."""
