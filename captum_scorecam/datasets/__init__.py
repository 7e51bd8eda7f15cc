"""Data sets to evaluate on: labelled images, the regions of their objects, and mosaics."""

from captum_scorecam.datasets.dataset_of_pairs import DatasetOfPairs
from captum_scorecam.datasets.formats import DATA_FORMATS, open_data
from captum_scorecam.datasets.labels import label_table, read_label_table, resolve_label
from captum_scorecam.datasets.mosaics import Mosaics
from captum_scorecam.datasets.sample import EvaluationData, Label, Sample
from captum_scorecam.models.preprocessing import seen_region

__all__ = [
    "DATA_FORMATS",
    "DatasetOfPairs",
    "EvaluationData",
    "Label",
    "Mosaics",
    "Sample",
    "label_table",
    "open_data",
    "read_label_table",
    "resolve_label",
    "seen_region",
]
