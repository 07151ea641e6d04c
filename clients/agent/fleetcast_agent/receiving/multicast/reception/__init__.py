"""What is decided about received datagrams: opened, put into their windows, found forged. No sockets, no threads."""
