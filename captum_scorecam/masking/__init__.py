"""Masks in [0, 1] from activation maps, random grids or attributions, and what a masked-out pixel becomes."""
