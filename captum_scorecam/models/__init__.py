"""Classifiers as people have them: models and images by name or file, their classes, the layer to explain."""
