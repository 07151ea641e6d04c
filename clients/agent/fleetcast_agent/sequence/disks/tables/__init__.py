"""Partition tables as they are on disks: read from bytes, rewritten in place."""
