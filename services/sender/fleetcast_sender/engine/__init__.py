"""What a transmission decides. Pure: no sockets, threads or clock."""
