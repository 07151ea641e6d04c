"""What Python lacks of sockets."""
