"""Partition tables, volumes, file systems and files of a machine that is set up."""
