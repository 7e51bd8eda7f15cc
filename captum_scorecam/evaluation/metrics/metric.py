"""A metric of the evaluation: what it gets, one method's map of one image, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_scorecam.evaluation.records import Curve
from captum_scorecam.evaluation.request import ExplanationRequest
from captum_scorecam.metrics.functional import MaskedInputScores, masked_input_scores

On: TypeAlias = Literal["image", "mosaic"]
Need: TypeAlias = Literal["label", "boxes"]


@dataclass(frozen=True)
class MetricInput:
    """One method's map of one image.

    Attributes:
        method (str): The method, a name in `METHODS`.
        request (ExplanationRequest): What it explained; of one class.
        maps (Tensor): Its map, 1×1×H×W, of the inputs' size, float32, on the CPU.
        region (Tensor, optional): The pixels that show the object of that class, boolean, H×W, at least one of them
            True. Default: None, unknown.
    """

    method: str
    request: ExplanationRequest
    maps: Tensor
    region: Tensor | None = None

    @property
    def target(self) -> int:
        """The class that was explained."""
        return self.request.targets[0]

    @property
    def perturbations_per_eval(self) -> int | None:
        """Masked inputs per forward."""
        return self.request.options.perturbations_per_eval

    @cached_property
    def scores_of_map(self) -> MaskedInputScores:
        """The scores of the image and of the image masked by the map; several metrics share their forwards."""
        return self._masked_scores(None)

    @cached_property
    def scores_of_half(self) -> MaskedInputScores:
        """The scores of the image and of the half of its pixels where the map is highest."""
        return self._masked_scores(0.5)

    def _masked_scores(self, keep_fraction: float | None) -> MaskedInputScores:
        return masked_input_scores(
            self.request.model,
            self.request.inputs,
            self.maps,
            self.target,
            keep_fraction=keep_fraction,
            score=self.request.score,
            perturbations_per_eval=self.perturbations_per_eval,
        )


@dataclass(frozen=True)
class MetricResult:
    """What a metric returns for one map.

    Attributes:
        value (float, optional): Its value; None where it is undefined.
        curve (Curve, optional): The curve behind the value. Default: None.
    """

    value: float | None
    curve: Curve | None = None


@dataclass(frozen=True)
class Metric:
    """A metric as the evaluation, its report and the command line use it.

    Attributes:
        name (str): Letters, digits and underscores.
        title (str): Title with the unit, for tables.
        higher_is_better (bool): Whether a higher value is better.
        compute (callable): Takes a `MetricInput` and returns a `MetricResult`. An exception becomes a record's error.
        on (str): ``image``, or ``mosaic`` for the map of a mosaic in which the image is one of four. Default: "image".
        needs (frozenset of str): What the data set must have: ``label``, ``boxes``. Default: nothing.
    """

    name: str
    title: str
    higher_is_better: bool
    compute: Callable[[MetricInput], MetricResult]
    on: On = "image"
    needs: frozenset[Need] = frozenset()


def as_floats(values: Tensor) -> list[float]:
    """Returns numbers rounded to 6 significant digits, the precision of float32."""
    return [float(f"{value:.6g}") for value in values.to(torch.float64).flatten().tolist()]
