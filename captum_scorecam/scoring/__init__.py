"""Masked inputs through the model, chunk by chunk, to the scores of the targets."""
