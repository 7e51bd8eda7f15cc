"""Labelled images from folders, CSV files, VOC, COCO, ImageNet or custom data sets, and mosaics of them."""

from captum_scorecam.datasets.dataset_of_pairs import DatasetOfPairs
from captum_scorecam.datasets.formats import DATA_FORMATS, DataFormat, open_data
from captum_scorecam.datasets.images import read_image
from captum_scorecam.datasets.labels import label_table, read_label_table, resolve_label
from captum_scorecam.datasets.mosaics import Mosaics
from captum_scorecam.datasets.sample import ImageDataset, Label, Sample

__all__ = [
    "DATA_FORMATS",
    "DataFormat",
    "DatasetOfPairs",
    "ImageDataset",
    "Label",
    "Mosaics",
    "Sample",
    "label_table",
    "open_data",
    "read_image",
    "read_label_table",
    "resolve_label",
]
