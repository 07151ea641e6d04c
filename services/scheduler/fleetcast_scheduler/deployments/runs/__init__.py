"""A machine's side of deployments."""
