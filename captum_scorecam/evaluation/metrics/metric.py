"""A metric of the evaluation, its input (one method's map of one image) and its result."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from captum_scorecam.evaluation.method import ChosenMethod
from captum_scorecam.evaluation.methods import run_method
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.evaluation.request import ExplanationRequest
from captum_scorecam.metrics.functional import (
    MaskedInputScores,
    PerturbationCurve,
    explanation_map,
    lerf,
    masked_input_scores,
    morf,
    other_classes,
)

On: TypeAlias = Literal["image", "mosaic"]
Need: TypeAlias = Literal["label", "boxes", "classes"]
Range: TypeAlias = tuple[float, float]

ANY_NUMBER: Range = (-math.inf, math.inf)
AT_LEAST_0: Range = (0, math.inf)
FRACTION: Range = (0, 1)
HALF: Range = (-0.5, 0.5)
PERCENT: Range = (0, 100)
CORRELATION: Range = (-1, 1)


@dataclass(frozen=True)
class MetricInput:
    """One method's map of one image.

    Attributes:
        method (str or ChosenMethod): The method, a name in `METHODS` or a method with options.
        request (ExplanationRequest): The explained request, for one class.
        maps (Tensor): The map, 1×1×H×W, upsampled to the inputs' size, float32, on the CPU.
        region (Tensor, optional): Region of the object of that class, within its boxes, boolean, H×W, with at least
            one True. Default: None, unknown.
        n_classes (int, optional): The model's number of classes. Default: None, unknown.
        mask (Tensor, optional): The object's pixels, boolean, H×W; none is True if they are cropped away. Default:
            None, unknown.
        boxes (Tensor, optional): The object's boxes, M×4, left, top, right, bottom in pixels of the inputs. Default:
            None, a single one around the region.
        other_map (Tensor, optional): The map of `other_class`, 1×1×H×W, if the same forward passes gave it. Default:
            None.
    """

    method: str | ChosenMethod
    request: ExplanationRequest
    maps: Tensor
    region: Tensor | None = None
    n_classes: int | None = None
    mask: Tensor | None = None
    boxes: Tensor | None = None
    other_map: Tensor | None = None

    @property
    def object_pixels(self) -> Tensor | None:
        """The object's mask, or its region if it has no mask, boolean, H×W, with at least one True; else None."""
        pixels = self.region if self.mask is None else self.mask
        return None if pixels is None or not pixels.any() else pixels

    @property
    def object_boxes(self) -> Tensor | None:
        """The object's boxes, M×4; None if there is no region."""
        return boxes_of_masks(self.region[None]) if self.boxes is None and self.region is not None else self.boxes

    @property
    def target(self) -> int:
        """The explained class."""
        return self.request.targets[0]

    @property
    def perturbations_per_eval(self) -> int | None:
        """Masked inputs per forward pass."""
        return self.request.options.perturbations_per_eval

    @cached_property
    def scores_of_map(self) -> MaskedInputScores:
        """The scores of the image before and after masking it with the map; shared by several metrics."""
        found: MaskedInputScores = self.computed(masked_input_scores, keep_fraction=None)
        return found

    @cached_property
    def scores_of_half(self) -> MaskedInputScores:
        """The scores of the image before and after masking it with the map's upper half."""
        found: MaskedInputScores = self.computed(masked_input_scores, keep_fraction=0.5)
        return found

    @cached_property
    def morf_curve(self) -> PerturbationCurve:
        """The score as the most relevant pixels are removed first; shared by several metrics."""
        found: PerturbationCurve = self.computed(morf)
        return found

    @cached_property
    def lerf_curve(self) -> PerturbationCurve:
        """The score as the least relevant pixels are removed first."""
        found: PerturbationCurve = self.computed(lerf)
        return found

    @cached_property
    def map_of_masked(self) -> Tensor:
        """The method's map of the image masked with the map, 1×1×H×W; shared by several metrics."""
        return self.explain_again(explanation_map(self.request.inputs, self.maps))

    def map_of(self, target: int) -> Tensor:
        """Explains another class of the image.

        Args:
            target (int): The class.

        Returns:
            Tensor: The map, 1×1×H×W.
        """
        shared = self.request.shared if self.request.shared is not None and self.request.shared.has(target) else None
        return run_method(self.method, replace(self.request, targets=[target], shared=shared))[0].unsqueeze(1)

    def explain_again(self, inputs: Tensor, target: int | None = None, model: nn.Module | None = None) -> Tensor:
        """Runs the method on another image, for another class, or after the model has changed.

        Args:
            inputs (Tensor): The preprocessed image, 1×C×H×W.
            target (int, optional): The class. Default: None, the explained one.
            model (nn.Module, optional): A changed copy of the model. Default: None, the model.

        Returns:
            Tensor: The map, 1×1×H×W.
        """
        targets = self.request.targets if target is None else [target]
        request = replace(self.request, inputs=inputs, targets=targets, shared=None)
        if model is not None and model is not request.model:
            request = replace(request, model=model, layer=request.layer.of_copy(model), masked_forward_func=None)
        return run_method(self.method, request)[0].unsqueeze(1)

    def computed(self, function: Callable[..., Any], **options: Any) -> Any:
        """Calls a function of :mod:`captum_scorecam.metrics.functional` that runs masked inputs, with this map.

        Args:
            function (callable): Such as `insertion`.
            **options: Further options of the function.

        Returns:
            The function's result.
        """
        return function(
            self.request.forward_of_masked,
            self.request.inputs,
            self.maps,
            self.target,
            score=self.request.score,
            perturbations_per_eval=self.perturbations_per_eval,
            **options,
        )


@dataclass(frozen=True)
class MetricResult:
    """The result of a metric for one map.

    Attributes:
        value (float, optional): The value; None if undefined, or if the metric is the `best_of_curve`.
        curve (Curve, optional): The curve behind the value. Default: None.
    """

    value: float | None
    curve: Curve | None = None


@dataclass(frozen=True)
class Metric:
    """A metric for the evaluation, the report and the command line.

    Attributes:
        name (str): Letters, digits and underscores, but not ``map``.
        title (str): Title with the unit, for tables.
        higher_is_better (bool): Whether a higher value is better.
        compute (callable): Takes a `MetricInput` and returns a `MetricResult`. Exceptions are recorded as errors.
        on (str): ``image``, or ``mosaic`` for the map of a mosaic in which the image is one of four. Default: "image".
        needs (frozenset of str): What the data set must provide: ``label``, ``boxes``; or the model: two or more
            ``classes``. Default: nothing.
        range (tuple of float): The lowest and highest possible number in values and curves; others are errors.
            Default: any finite number.
        scores (tuple of float): The lowest and highest score of the unmasked image for which it is defined.
            Default: any finite number.
        best_of_curve (bool): Whether its value for a data set is the best point of the mean curve over the images, so
            that `compute` returns a curve without a value. Default: False.
        in_chunks (bool): Whether it runs so many masked inputs, besides those of the method, that their number per
            forward pass is worth tuning. Default: False.
        of_other_class (bool): Whether it uses `MetricInput.other_map`. Default: False.
        text (str, optional): How it was chosen, if it has options. Default: None, by its name.
        axes (tuple of str): What the x and y of its curves are, for charts. Default: no labels.
    """

    name: str
    title: str
    higher_is_better: bool
    compute: Callable[[MetricInput], MetricResult]
    on: On = "image"
    needs: frozenset[Need] = frozenset()
    range: Range = ANY_NUMBER
    scores: Range = ANY_NUMBER
    best_of_curve: bool = False
    in_chunks: bool = False
    of_other_class: bool = False
    text: str | None = None
    axes: tuple[str, str] = ("", "")


def other_class(inputs: Tensor, target: int, n_classes: int, seed: int) -> int:
    """Draws another class than the explained one, always the same for an image and a seed."""
    image = zlib.crc32(inputs.detach().cpu().float().numpy().tobytes())
    draws = torch.Generator("cpu").manual_seed(seed ^ image)
    return int(other_classes(torch.tensor([target]), n_classes, draws))


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Returns the boxes around masks N×H×W that have a True, N×4, left, top, right, bottom; the last two exclusive."""
    boxes: Tensor = masks_to_boxes(masks).long() + torch.tensor([0, 0, 1, 1], device=masks.device)
    return boxes


def as_floats(values: Tensor) -> list[float]:
    """Converts values to floats rounded to 6 significant digits, the precision of float32."""
    return [float(f"{value:.6g}") for value in values.to(torch.float64).flatten().tolist()]
