"""Certificates, and which identity they prove."""
