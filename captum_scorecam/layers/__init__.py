"""The layer to explain: named, or found by how a model's activations depend on the image."""

from captum_scorecam.layers.explained_layer import ExplainedLayer, find_layer
from captum_scorecam.layers.layer_choice import FoundLayers, check_layer_choice

__all__ = ["ExplainedLayer", "FoundLayers", "check_layer_choice", "find_layer"]
