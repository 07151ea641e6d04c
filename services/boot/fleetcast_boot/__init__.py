"""The boot service: what answers machines that start from the network."""
