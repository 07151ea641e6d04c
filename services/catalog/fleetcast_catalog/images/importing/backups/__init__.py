"""Directories that Clonezilla and FOG made of disks, and files that come in pieces."""
