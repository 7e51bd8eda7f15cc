"""Functional metrics, which take scores, curves or maps, or run the model themselves."""

from captum_scorecam.metrics.functional.average_drop import (
    MaskedInputScores,
    average_drop,
    average_gain,
    average_increase,
    masked_input_scores,
)
from captum_scorecam.metrics.functional.captum_metrics import infidelity, sensitivity_max
from captum_scorecam.metrics.functional.energy_pointing_game import energy_pointing_game, pointing_game
from captum_scorecam.metrics.functional.insertion_deletion import PerturbationCurve, deletion, insertion
from captum_scorecam.metrics.functional.perturbations import PerturbFunction
from captum_scorecam.metrics.functional.randomization import LayerSimilarity, cascading_parameter_randomization

__all__ = [
    "LayerSimilarity",
    "MaskedInputScores",
    "PerturbFunction",
    "PerturbationCurve",
    "average_drop",
    "average_gain",
    "average_increase",
    "cascading_parameter_randomization",
    "deletion",
    "energy_pointing_game",
    "infidelity",
    "insertion",
    "masked_input_scores",
    "pointing_game",
    "sensitivity_max",
]
