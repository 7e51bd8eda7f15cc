"""Data sets to evaluate on: labelled images, the regions of their objects, and mosaics."""

from captum_scorecam.evaluation.data.dataset_of_pairs import DatasetOfPairs
from captum_scorecam.evaluation.data.formats import DATA_FORMATS, open_data
from captum_scorecam.evaluation.data.labels import label_table, read_label_table, resolve_label
from captum_scorecam.evaluation.data.mosaics import Mosaics
from captum_scorecam.evaluation.data.regions import seen_region
from captum_scorecam.evaluation.data.sample import EvaluationData, Label, Sample

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
