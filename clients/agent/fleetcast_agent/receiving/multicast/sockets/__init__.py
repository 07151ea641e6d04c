"""The sockets of a group: which interface, which membership, and datagrams as the kernel hands them out."""
