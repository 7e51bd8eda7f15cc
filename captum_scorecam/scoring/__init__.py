"""Runs masked inputs through the model, in chunks, and returns the scores of the targets."""
