"""The fleetcast datagram format: WIRE.md in code. Bytes and numbers only: no sockets, no clock, no processes."""
