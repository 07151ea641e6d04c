"""Deployments, and the runs of machines."""
