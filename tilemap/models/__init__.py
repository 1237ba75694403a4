"""Models: cards, networks, and one file per backend behind one protocol."""
