"""The layer to explain: named, or found by how a model's activations depend on the image."""

from captum_scorecam.layers.explained_layer import ExplainedLayer, find_layer

__all__ = ["ExplainedLayer", "find_layer"]
