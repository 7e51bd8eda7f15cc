"""Classifiers loaded by name or from a file, with preprocessing, class names and the layer to explain."""

from captum_scorecam.layers import ExplainedLayer, find_layer
from captum_scorecam.models.class_names import class_name, find_class, imagenet_class_names
from captum_scorecam.models.classifier import Classifier, Prediction, Preprocess
from captum_scorecam.models.loading import Weights, check_model_name, load_classifier
from captum_scorecam.models.preprocessing import seen_pixels, seen_region

__all__ = [
    "Classifier",
    "ExplainedLayer",
    "Prediction",
    "Preprocess",
    "Weights",
    "check_model_name",
    "class_name",
    "find_class",
    "find_layer",
    "imagenet_class_names",
    "load_classifier",
    "seen_pixels",
    "seen_region",
]
