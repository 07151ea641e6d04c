"""HTTP for boot loaders."""
