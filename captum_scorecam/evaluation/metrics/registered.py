"""The measures by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from captum_scorecam.evaluation.metrics.metric import (
    BOXES,
    LABEL,
    ON_IMAGE,
    ON_MOSAIC,
    Case,
    Curve,
    Measure,
    Measured,
    as_floats,
)
from captum_scorecam.evaluation.metrics.reexplaining import (
    infidelity_forwards,
    measure_infidelity,
    measure_sanity_check,
    measure_sensitivity_max,
    sanity_forwards,
    sensitivity_forwards,
)
from captum_scorecam.evaluation.registry import check_names, register
from captum_scorecam.evaluation.request import Question
from captum_scorecam.metrics.functional import (
    PerturbationCurve,
    average_drop,
    average_gain,
    average_increase,
    deletion,
    energy_pointing_game,
    insertion,
    pointing_game,
)

DEFAULT_MEASURES = ("average_drop", "average_increase", "insertion", "deletion")
CURVE_STEPS = 100  # insertion and deletion change 1 % of the pixels at a time


def register_measure(measure: Measure) -> None:
    """Adds a measure to `MEASURES`, for ``--metric`` and `evaluate`.

    Raises:
        ValueError: If its name is taken or not of letters, digits and underscores, or a field has an unknown value.
    """
    if measure.on not in (ON_IMAGE, ON_MOSAIC):
        raise ValueError(f"Expected `on` to be 'image' or 'mosaic', but got {measure.on!r}.")
    if not measure.needs <= {LABEL, BOXES}:
        raise ValueError(f"Expected `needs` to hold 'label' or 'boxes' only, but got {sorted(measure.needs)}.")
    register(MEASURES, measure.name, measure, "measure")


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the measures' names, each once.

    Raises:
        ValueError: If there is no measure of a name.
    """
    return check_names(MEASURES, names, "--metric")


def _of_scores(function: Callable[[Tensor, Tensor], Tensor], half: bool) -> Callable[[Case], Measured]:
    def measure(case: Case) -> Measured:
        return Measured(float(function(*(case.scores_of_half if half else case.scores_of_map))))

    return measure


def _of_curve(function: Callable[..., PerturbationCurve]) -> Callable[[Case], Measured]:
    def measure(case: Case) -> Measured:
        question = case.question
        curve = function(
            question.model,
            question.inputs,
            case.maps,
            case.target,
            step=1 / CURVE_STEPS,
            score=question.score,
            perturbations_per_eval=case.rows,
        )
        return Measured(float(curve.auc), Curve(as_floats(curve.fractions), as_floats(curve.scores)))

    return measure


def _of_region(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Case], Measured]:
    def measure(case: Case) -> Measured:
        return Measured(None if case.region is None else float(function(case.maps, case.region.unsqueeze(0))))

    return measure


def _scores_forwards(_question: Question, _per_map: int) -> int:
    return 3  # one that shows the model's state, then the image and what is left of it


def _curve_forwards(_question: Question, _per_map: int) -> int:
    return 1 + CURVE_STEPS + 1


def _mosaic_forwards(_question: Question, per_map: int) -> int:
    return per_map


_BOXES, _LABEL = frozenset({BOXES}), frozenset({LABEL})
_DROP, _INCREASE, _GAIN = (
    _of_scores(function, half=False) for function in (average_drop, average_increase, average_gain)
)
_DROP_HALF, _INCREASE_HALF = (_of_scores(function, half=True) for function in (average_drop, average_increase))
_POINTING, _ENERGY = _of_region(pointing_game), _of_region(energy_pointing_game)

MEASURES = {
    measure.name: measure
    for measure in (
        Measure("average_drop", "Average drop, %", False, _DROP, _scores_forwards),
        Measure("average_increase", "Average increase, %", True, _INCREASE, _scores_forwards),
        Measure("average_gain", "Average gain, %", True, _GAIN, _scores_forwards),
        Measure("average_drop_half", "Average drop, top half, %", False, _DROP_HALF, _scores_forwards),
        Measure("average_increase_half", "Average increase, top half, %", True, _INCREASE_HALF, _scores_forwards),
        Measure("insertion", "Insertion, AUC", True, _of_curve(insertion), _curve_forwards),
        Measure("deletion", "Deletion, AUC", False, _of_curve(deletion), _curve_forwards),
        Measure("pointing_game", "Pointing game", True, _POINTING, needs=_BOXES),
        Measure("energy_pointing_game", "Energy in the boxes", True, _ENERGY, needs=_BOXES),
        Measure("mosaic_pointing_game", "Energy in the tile", True, _ENERGY, _mosaic_forwards, ON_MOSAIC, _LABEL),
        Measure("infidelity", "Infidelity", False, measure_infidelity, infidelity_forwards),
        Measure("sensitivity_max", "Sensitivity", False, measure_sensitivity_max, sensitivity_forwards),
        Measure("sanity_check", "Similarity after randomisation", False, measure_sanity_check, sanity_forwards),
    )
}
