"""Functional metrics, which take scores, curves or maps, or run the model themselves."""

from captum_scorecam.metrics.functional.adcc import adcc, coherency, explanation_map, l1_complexity
from captum_scorecam.metrics.functional.average_drop import (
    MaskedInputScores,
    average_drop,
    average_gain,
    average_increase,
    masked_input_scores,
)
from captum_scorecam.metrics.functional.box_accuracy import BoxAccuracy, max_box_acc
from captum_scorecam.metrics.functional.captum_metrics import infidelity, sensitivity_max
from captum_scorecam.metrics.functional.concentration import complexity, sparseness
from captum_scorecam.metrics.functional.energy_pointing_game import energy_pointing_game, pointing_game
from captum_scorecam.metrics.functional.insertion_deletion import PerturbationCurve, deletion, insertion
from captum_scorecam.metrics.functional.localization import iou, relevance_mass, relevance_rank
from captum_scorecam.metrics.functional.perturbations import PerturbFunction
from captum_scorecam.metrics.functional.pixel_flipping import RelevanceGain, lerf, morf, srg
from captum_scorecam.metrics.functional.random_logit import other_classes, random_logit
from captum_scorecam.metrics.functional.randomization import LayerSimilarity, cascading_parameter_randomization
from captum_scorecam.metrics.functional.road import RoadCurves, road

__all__ = [
    "BoxAccuracy",
    "LayerSimilarity",
    "MaskedInputScores",
    "PerturbFunction",
    "PerturbationCurve",
    "RelevanceGain",
    "RoadCurves",
    "adcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "cascading_parameter_randomization",
    "coherency",
    "complexity",
    "deletion",
    "energy_pointing_game",
    "explanation_map",
    "infidelity",
    "insertion",
    "iou",
    "l1_complexity",
    "lerf",
    "masked_input_scores",
    "max_box_acc",
    "morf",
    "other_classes",
    "pointing_game",
    "random_logit",
    "relevance_mass",
    "relevance_rank",
    "road",
    "sensitivity_max",
    "sparseness",
    "srg",
]
