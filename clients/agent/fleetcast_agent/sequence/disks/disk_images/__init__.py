"""An image of a whole disk on a disk: which partition is the system, where all go, and what grows."""
