"""Predicts the scores of most masks from the scores of a few, and how far the map may be off."""
