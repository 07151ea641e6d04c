"""NTFS as it lies on a disk. A mount hides what is behind a reparse point; the volume's own records do not."""
