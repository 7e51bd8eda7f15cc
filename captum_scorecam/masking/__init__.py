"""Masks in [0, 1] from activation maps, random grids or attributions, and baselines that replace masked-out pixels."""
