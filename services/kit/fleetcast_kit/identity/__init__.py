"""Certificates, and who is who."""
