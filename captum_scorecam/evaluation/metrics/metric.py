"""A measure: what it sees of one method's map of one image, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from captum_scorecam.evaluation.request import Question
from captum_scorecam.metrics.functional import MaskedInputScores, masked_input_scores

ON_IMAGE, ON_MOSAIC = "image", "mosaic"
LABEL, BOXES = "label", "boxes"


@dataclass(frozen=True)
class Case:
    """A map that is measured, and how it came about.

    Attributes:
        method (str): The method, a name in `METHODS`.
        question (Question): What it was asked, about one class.
        maps (Tensor): Its map, 1×1×H×W, of the inputs' size, float32, on the CPU.
        region (Tensor, optional): Where the object of that class is, boolean, H×W, with at least one pixel; None where
            that is not known.
    """

    method: str
    question: Question
    maps: Tensor
    region: Tensor | None = None

    @property
    def target(self) -> int:
        """The class that was explained."""
        return self.question.targets[0]

    @property
    def rows(self) -> int | None:
        """The masked inputs in a forward, ``perturbations_per_eval``."""
        return self.question.options.perturbations_per_eval

    @cached_property
    def scores_of_map(self) -> MaskedInputScores:
        """The scores of the image and of what the whole map leaves of it."""
        return self._masked_scores(None)

    @cached_property
    def scores_of_half(self) -> MaskedInputScores:
        """The scores of the image and of what the upper half of the map's pixels leaves of it."""
        return self._masked_scores(0.5)

    def _masked_scores(self, keep_fraction: float | None) -> MaskedInputScores:
        question = self.question
        return masked_input_scores(
            question.model,
            question.inputs,
            self.maps,
            self.target,
            keep_fraction=keep_fraction,
            score=question.score,
            perturbations_per_eval=self.rows,
        )


@dataclass(frozen=True)
class Curve:
    """What is drawn of a measure.

    Attributes:
        x (list of float or str): Fractions of pixels, or names of layers.
        y (list of float): A number for each.
    """

    x: Sequence[float | str]
    y: Sequence[float]


@dataclass(frozen=True)
class Measured:
    """What a measure says of one map.

    Attributes:
        value (float, optional): Its number; None where it does not apply.
        curve (Curve, optional): What is drawn of it. Default: None.
    """

    value: float | None
    curve: Curve | None = None


@dataclass(frozen=True)
class Measure:
    """A measure as the command line, the evaluation and the report know it.

    Attributes:
        name (str): Letters, digits and underscores.
        title (str): How it is shown, with its unit.
        higher_is_better (bool): Whether a higher number speaks for a map.
        measure (callable): Measures a case. What it raises becomes a record with an error.
        forwards (callable): The most forwards that it runs, of a question and the forwards of one map.
        on (str): ``image``, or ``mosaic``: the map of a mosaic, in which the image is one of four. Default: "image".
        needs (frozenset of str): What the data must have: ``label``, ``boxes``. Default: nothing.
    """

    name: str
    title: str
    higher_is_better: bool
    measure: Callable[[Case], Measured]
    forwards: Callable[[Question, int], int] = lambda _question, _per_map: 0
    on: str = ON_IMAGE
    needs: frozenset[str] = frozenset()


def as_floats(values: Tensor) -> list[float]:
    """Returns numbers to 6 significant digits, which is what a curve needs and float32 has."""
    return [float(f"{value:.6g}") for value in values.to(torch.float64).flatten().tolist()]
