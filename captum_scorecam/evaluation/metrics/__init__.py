"""The metrics of an evaluation, by name."""
