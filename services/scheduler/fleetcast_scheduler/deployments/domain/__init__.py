"""The rules of deployments and runs. Pure."""
