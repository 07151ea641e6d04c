"""Users' files saved and put back: which they are, what a plain copy would lose, where the copy is kept."""
